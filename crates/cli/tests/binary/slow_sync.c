/* For LD_PRELOAD: fsync and fdatasync take as long as the file that SYNC_MS_FILE names says, in milliseconds, read again and
   again while they wait; with SYNC_MS_IN, only of files whose path has that in it. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int is_meant(int file)
{
    const char *part = getenv("SYNC_MS_IN");
    char link[64], path[4096];
    if (!part)
        return 1;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    return strstr(path, part) != NULL;
}

static void wait_as_told(int file)
{
    if (!is_meant(file))
        return;
    const char *path = getenv("SYNC_MS_FILE");
    for (long waited = 0;; waited += 10) {
        long told = 0;
        FILE *file = path ? fopen(path, "r") : NULL;
        if (file) {
            if (fscanf(file, "%ld", &told) != 1)
                told = 0;
            fclose(file);
        }
        if (waited >= told)
            return;
        usleep(10 * 1000);
    }
}

int fsync(int file)
{
    int (*next)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    wait_as_told(file);
    return next(file);
}

int fdatasync(int file)
{
    int (*next)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    wait_as_told(file);
    return next(file);
}
