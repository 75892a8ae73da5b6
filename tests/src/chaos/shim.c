/* Faults inside one process, by LD_PRELOAD: another wall clock, dumps of netfilter that fail, and
 * an fdatasync that fails. A file that the harness and the process map says which. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

/* The same as `Control` in shim.rs. */
struct control {
    int64_t clock_offset_ns;  /* added to the wall clock */
    uint32_t failing_dumps;   /* reads of dumps that will fail */
    uint32_t failed_dumps;    /* those that have failed */
    uint32_t failing_syncs;   /* fdatasyncs that will fail */
    uint32_t failed_syncs;    /* those that have failed */
};

static struct control none;
static struct control *control = &none;
static int (*real_clock_gettime)(clockid_t, struct timespec *);
static ssize_t (*real_recv)(int, void *, size_t, int);
static ssize_t (*real_recvfrom)(int, void *, size_t, int, struct sockaddr *, socklen_t *);
static ssize_t (*real_recvmsg)(int, struct msghdr *, int);
static int (*real_recvmmsg)(int, struct mmsghdr *, unsigned int, int, struct timespec *);
static int (*real_fdatasync)(int);
static int (*real_fsync)(int);
static int (*real_cnd_timedwait)(cnd_t *, mtx_t *, const struct timespec *);

__attribute__((constructor)) static void prepare(void)
{
    real_clock_gettime = dlsym(RTLD_NEXT, "clock_gettime");
    real_recv = dlsym(RTLD_NEXT, "recv");
    real_recvfrom = dlsym(RTLD_NEXT, "recvfrom");
    real_recvmsg = dlsym(RTLD_NEXT, "recvmsg");
    real_recvmmsg = dlsym(RTLD_NEXT, "recvmmsg");
    real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    real_fsync = dlsym(RTLD_NEXT, "fsync");
    real_cnd_timedwait = dlsym(RTLD_NEXT, "cnd_timedwait");
    const char *path = getenv("FLOWLOG_CHAOS_CONTROL");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    void *map = mmap(NULL, sizeof none, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map != MAP_FAILED)
        control = map;
    close(fd);
}

/* Takes one of what is left, and counts it as done. */
static int take(uint32_t *left, uint32_t *done)
{
    uint32_t now = __atomic_load_n(left, __ATOMIC_RELAXED);
    while (now > 0) {
        if (__atomic_compare_exchange_n(left, &now, now - 1, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
            __atomic_fetch_add(done, 1, __ATOMIC_RELAXED);
            return 1;
        }
    }
    return 0;
}

/* Whether it is a socket of netfilter that has joined no group: dumps are read from it. */
static int is_for_dumps(int fd)
{
    int protocol = -1;
    socklen_t length = sizeof protocol;
    if (getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &length) < 0 || protocol != NETLINK_NETFILTER)
        return 0;
    int domain = -1;
    length = sizeof domain;
    if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &length) < 0 || domain != AF_NETLINK)
        return 0;
    uint32_t groups[8] = {0};
    length = sizeof groups;
    if (getsockopt(fd, SOL_NETLINK, NETLINK_LIST_MEMBERSHIPS, groups, &length) < 0)
        return 0;
    for (size_t at = 0; at < sizeof groups / sizeof *groups; at++)
        if (groups[at])
            return 0;
    return 1;
}

static int dump_fails(int fd)
{
    if (!__atomic_load_n(&control->failing_dumps, __ATOMIC_RELAXED) || !is_for_dumps(fd))
        return 0;
    if (!take(&control->failing_dumps, &control->failed_dumps))
        return 0;
    errno = ENOBUFS;
    return 1;
}

ssize_t recv(int fd, void *buffer, size_t length, int flags)
{
    return dump_fails(fd) ? -1 : real_recv(fd, buffer, length, flags);
}

ssize_t recvfrom(int fd, void *buffer, size_t length, int flags, struct sockaddr *from, socklen_t *size)
{
    return dump_fails(fd) ? -1 : real_recvfrom(fd, buffer, length, flags, from, size);
}

ssize_t recvmsg(int fd, struct msghdr *message, int flags)
{
    return dump_fails(fd) ? -1 : real_recvmsg(fd, message, flags);
}

int recvmmsg(int fd, struct mmsghdr *messages, unsigned int count, int flags, struct timespec *timeout)
{
    return dump_fails(fd) ? -1 : real_recvmmsg(fd, messages, count, flags, timeout);
}

static int sync_fails(void)
{
    if (!__atomic_load_n(&control->failing_syncs, __ATOMIC_RELAXED))
        return 0;
    if (!take(&control->failing_syncs, &control->failed_syncs))
        return 0;
    errno = EIO;
    return 1;
}

int fdatasync(int fd)
{
    return sync_fails() ? -1 : real_fdatasync(fd);
}

int fsync(int fd)
{
    return sync_fails() ? -1 : real_fsync(fd);
}

int clock_gettime(clockid_t clock, struct timespec *time)
{
    int result = real_clock_gettime(clock, time);
    int64_t offset = __atomic_load_n(&control->clock_offset_ns, __ATOMIC_RELAXED);
    if (result == 0 && offset != 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        int64_t nanoseconds = time->tv_nsec + offset % 1000000000;
        time->tv_sec += offset / 1000000000;
        if (nanoseconds < 0) {
            nanoseconds += 1000000000;
            time->tv_sec -= 1;
        } else if (nanoseconds >= 1000000000) {
            nanoseconds -= 1000000000;
            time->tv_sec += 1;
        }
        time->tv_nsec = nanoseconds;
    }
    return result;
}

/* librdkafka waits by this. The kernel waits by its own clock, so short waits one after the other end
 * when the stepping clock says so, as they would if the clock of the host stepped. */
int cnd_timedwait(cnd_t *condition, mtx_t *mutex, const struct timespec *deadline)
{
    const int64_t longest_ns = 20000000;
    for (;;) {
        struct timespec now;
        clock_gettime(CLOCK_REALTIME, &now);
        int64_t left_ns = (deadline->tv_sec - now.tv_sec) * 1000000000 + deadline->tv_nsec - now.tv_nsec;
        if (left_ns <= 0)
            return thrd_timedout;
        real_clock_gettime(CLOCK_REALTIME, &now);
        now.tv_nsec += left_ns < longest_ns ? left_ns : longest_ns;
        if (now.tv_nsec >= 1000000000) {
            now.tv_nsec -= 1000000000;
            now.tv_sec += 1;
        }
        int result = real_cnd_timedwait(condition, mutex, &now);
        if (result != thrd_timedout)
            return result;
    }
}

int gettimeofday(struct timeval *restrict time, void *restrict zone)
{
    (void)zone;
    struct timespec now;
    int result = clock_gettime(CLOCK_REALTIME, &now);
    if (result == 0) {
        time->tv_sec = now.tv_sec;
        time->tv_usec = now.tv_nsec / 1000;
    }
    return result;
}

time_t time(time_t *where)
{
    struct timespec now = {0};
    clock_gettime(CLOCK_REALTIME, &now);
    if (where)
        *where = now.tv_sec;
    return now.tv_sec;
}
