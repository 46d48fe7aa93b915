/* For LD_PRELOAD: fsync and fdatasync take as long as the file that SYNC_MS_FILE names says, in milliseconds, read again and
   again while they wait. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void wait_as_told(void)
{
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
    wait_as_told();
    return next(file);
}

int fdatasync(int file)
{
    int (*next)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    wait_as_told();
    return next(file);
}
