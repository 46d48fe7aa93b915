/* For LD_PRELOAD: while the file that DISK_FULL_FILE names is there, no file below the directory that DISK_FULL_DIR names is
   made or made longer: ENOSPC, as on a disk without room. If something is in that file, no write is done whole, wherever it goes to, and
   the error is EDQUOT: as with a quota on a file system that never writes in place. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int is_full_at(const char *path)
{
    const char *switched = getenv("DISK_FULL_FILE"), *below = getenv("DISK_FULL_DIR");
    return switched && below && strncmp(path, below, strlen(below)) == 0 && access(switched, F_OK) == 0;
}

static int is_full_for(int file, off_t end)
{
    char name[64], path[4096];
    struct stat found;
    snprintf(name, sizeof name, "/proc/self/fd/%d", file);
    ssize_t length = readlink(name, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    return is_full_at(path) && fstat(file, &found) == 0 && end > found.st_size;
}

static int refuse(void)
{
    errno = ENOSPC;
    return -1;
}

int open64(const char *path, int flags, ...)
{
    int (*next)(const char *, int, ...) = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open64");
    va_list more;
    va_start(more, flags);
    int mode = flags & O_CREAT ? va_arg(more, int) : 0;
    va_end(more);
    if (flags & O_CREAT && access(path, F_OK) != 0 && is_full_at(path))
        return refuse();
    return next(path, flags, mode);
}

static int is_out_of_quota(int file)
{
    char name[64], path[4096];
    struct stat switched;
    snprintf(name, sizeof name, "/proc/self/fd/%d", file);
    ssize_t length = readlink(name, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    return is_full_at(path) && stat(getenv("DISK_FULL_FILE"), &switched) == 0 && switched.st_size > 0;
}

ssize_t pwrite64(int file, const void *bytes, size_t count, off64_t at)
{
    ssize_t (*next)(int, const void *, size_t, off64_t) =
        (ssize_t (*)(int, const void *, size_t, off64_t))dlsym(RTLD_NEXT, "pwrite64");
    if (is_out_of_quota(file)) {
        next(file, bytes, count / 2, at);
        errno = EDQUOT;
        return -1;
    }
    return is_full_for(file, at + (off_t)count) ? refuse() : next(file, bytes, count, at);
}

ssize_t write(int file, const void *bytes, size_t count)
{
    ssize_t (*next)(int, const void *, size_t) = (ssize_t (*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
    off_t at = lseek(file, 0, SEEK_CUR);
    return at >= 0 && is_full_for(file, at + (off_t)count) ? refuse() : next(file, bytes, count);
}
