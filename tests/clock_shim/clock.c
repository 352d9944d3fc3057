/* Clocks under a test's control: preloaded into a process, it stands between libc's clocks and whoever asks.
 *
 * CLOCK_SHIM_STATE names a file of three int64 nanoseconds, mapped into memory, which a test changes while the
 * process runs (or is stopped): what is added to CLOCK_REALTIME, CLOCK_MONOTONIC and CLOCK_BOOTTIME. A machine
 * that sleeps is one whose monotonic clock rests while the other two go on. CLOCK_MONOTONIC_RAW stays true.
 * Waits with a deadline end when the clock that they name has reached it, as the kernel does it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000LL
/* A wait looks at the clocks this often, ns: one that was set in the middle of it is noticed. */
#define SLICE 20000000LL

static const volatile int64_t *state;
static int (*real_clock_gettime)(clockid_t, struct timespec *);
static int (*real_sem_clockwait)(sem_t *, clockid_t, const struct timespec *);
static int (*real_cond_timedwait)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
static int (*real_cond_clockwait)(pthread_cond_t *, pthread_mutex_t *, clockid_t, const struct timespec *);

__attribute__((constructor)) static void load(void) {
    const char *path = getenv("CLOCK_SHIM_STATE");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *map = file < 0 ? MAP_FAILED : mmap(NULL, 3 * sizeof *state, PROT_READ, MAP_SHARED, file, 0);
    if (file >= 0) close(file);
    if (map != MAP_FAILED) state = map;
    real_clock_gettime = dlsym(RTLD_NEXT, "clock_gettime");
    real_sem_clockwait = dlsym(RTLD_NEXT, "sem_clockwait");
    real_cond_timedwait = dlsym(RTLD_NEXT, "pthread_cond_timedwait");
    real_cond_clockwait = dlsym(RTLD_NEXT, "pthread_cond_clockwait");
}

static int64_t shift(clockid_t clock) {
    if (!state) return 0;
    switch (clock) {
    case CLOCK_REALTIME: case CLOCK_REALTIME_COARSE: case CLOCK_TAI: return state[0];
    case CLOCK_MONOTONIC: case CLOCK_MONOTONIC_COARSE: return state[1];
    case CLOCK_BOOTTIME: return state[2];
    default: return 0;
    }
}

static int64_t number(const struct timespec *t) { return t->tv_sec * SECOND + t->tv_nsec; }

static struct timespec span(int64_t ns) {
    struct timespec t = {ns / SECOND, ns % SECOND};
    if (t.tv_nsec < 0) { t.tv_nsec += SECOND; t.tv_sec--; }
    return t;
}

static int64_t true_now(clockid_t clock) {
    struct timespec t;
    if (!real_clock_gettime) load();
    real_clock_gettime(clock, &t);
    return number(&t);
}

static int64_t left(clockid_t clock, const struct timespec *deadline) {
    return number(deadline) - true_now(clock) - shift(clock);
}

int clock_gettime(clockid_t clock, struct timespec *t) {
    if (!real_clock_gettime) load();
    int error = real_clock_gettime(clock, t);
    if (!error) *t = span(number(t) + shift(clock));
    return error;
}

int gettimeofday(struct timeval *restrict t, void *restrict zone) {
    (void)zone;
    struct timespec now = span(true_now(CLOCK_REALTIME) + shift(CLOCK_REALTIME));
    t->tv_sec = now.tv_sec;
    t->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *t) {
    time_t now = (true_now(CLOCK_REALTIME) + shift(CLOCK_REALTIME)) / SECOND;
    if (t) *t = now;
    return now;
}

int clock_nanosleep(clockid_t clock, int flags, const struct timespec *request, struct timespec *remain) {
    int64_t until = number(request) + (flags & TIMER_ABSTIME ? 0 : true_now(clock) + shift(clock));
    struct timespec deadline = span(until);
    int64_t ns;
    while ((ns = left(clock, &deadline)) > 0) {
        struct timespec part = span(ns < SLICE ? ns : SLICE);
        if (nanosleep(&part, NULL)) {
            if (remain && !(flags & TIMER_ABSTIME)) *remain = span(left(clock, &deadline));
            return errno;
        }
    }
    return 0;
}

int sem_clockwait(sem_t *semaphore, clockid_t clock, const struct timespec *deadline) {
    for (;;) {
        int64_t ns = left(clock, deadline);
        struct timespec part = span(true_now(CLOCK_MONOTONIC) + (ns < SLICE ? ns : SLICE));
        if (!real_sem_clockwait(semaphore, CLOCK_MONOTONIC, &part)) return 0;
        if (errno != ETIMEDOUT || ns <= SLICE) return -1;
    }
}

int sem_timedwait(sem_t *semaphore, const struct timespec *deadline) {
    return sem_clockwait(semaphore, CLOCK_REALTIME, deadline);
}

int pthread_cond_clockwait(
    pthread_cond_t *condition, pthread_mutex_t *mutex, clockid_t clock, const struct timespec *deadline
) {
    struct timespec moved = span(number(deadline) - shift(clock));
    return real_cond_clockwait(condition, mutex, clock, &moved);
}

int pthread_cond_timedwait(
    pthread_cond_t *condition, pthread_mutex_t *mutex, const struct timespec *deadline
) {
    /* Which clock it was made for cannot be asked: it is the one that the deadline is near. */
    int64_t wall = left(CLOCK_REALTIME, deadline), steady = left(CLOCK_MONOTONIC, deadline);
    clockid_t clock = llabs(wall) < llabs(steady) ? CLOCK_REALTIME : CLOCK_MONOTONIC;
    struct timespec moved = span(number(deadline) - shift(clock));
    return real_cond_timedwait(condition, mutex, &moved);
}
