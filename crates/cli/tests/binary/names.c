/* For LD_PRELOAD: the name cluster.test has two addresses, 127.0.0.2 and then 127.0.0.1. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <string.h>

int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **found)
{
    int (*next)(const char *, const char *, const struct addrinfo *, struct addrinfo **) =
        (int (*)(const char *, const char *, const struct addrinfo *, struct addrinfo **))dlsym(RTLD_NEXT, "getaddrinfo");
    if (!name || strcmp(name, "cluster.test"))
        return next(name, service, hints, found);
    int failed = next("127.0.0.2", service, hints, found);
    if (failed)
        return failed;
    struct addrinfo *last = *found;
    while (last->ai_next)
        last = last->ai_next;
    return next("127.0.0.1", service, hints, &last->ai_next);
}
