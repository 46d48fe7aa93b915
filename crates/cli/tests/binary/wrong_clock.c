/* For LD_PRELOAD: the clock that tells the time of day shows CLOCK_SHOWS, in seconds since 1970. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>

int clock_gettime(clockid_t clock, struct timespec *time)
{
    int (*next)(clockid_t, struct timespec *) = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int failed = next(clock, time);
    const char *shows = getenv("CLOCK_SHOWS");
    if (!failed && clock == CLOCK_REALTIME && shows)
        time->tv_sec = atoll(shows);
    return failed;
}
