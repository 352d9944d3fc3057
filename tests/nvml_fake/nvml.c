/* A GPU that is not there: the part of NVML's C interface that the drivers and the sampler call.
 *
 * Behaviour comes from a text file of `key value` lines named by NVML_FAKE_STATE, read again at every call,
 * so that a test can pull the plug while something runs. Keys, with their defaults, are in `load`.
 * Return codes are NVML's: 0 success, 3 not supported, 4 no permission, 9 driver not loaded, 15 GPU is lost.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

typedef struct {
    double power_w, instant_w, step_ms, counter_ratio, gpu_util, memory_used_mib, memory_total_mib;
    double sm_clock, memory_clock, temperature_c, throttle, gpus, start_mj, counter_mj, field_supported;
    double init_error, energy_error, power_error, util_error, clock_error, lost, stuck, calls_fail_every;
    double own_listed, own_sm, other_pid, other_sm, differ, mig;
} State;

static const struct { const char *name; size_t at; double standard; } KEYS[] = {
#define KEY(name, standard) {#name, offsetof(State, name), standard}
    KEY(power_w, 100), KEY(instant_w, -1), KEY(step_ms, 20), KEY(counter_ratio, 1), KEY(gpu_util, 37),
    KEY(memory_used_mib, 1024), KEY(memory_total_mib, 8192), KEY(sm_clock, 1500), KEY(memory_clock, 5000),
    KEY(temperature_c, 41), KEY(throttle, 0), KEY(gpus, 1), KEY(start_mj, 123456789), KEY(counter_mj, -1),
    KEY(field_supported, 1), KEY(init_error, 0), KEY(energy_error, 0), KEY(power_error, 0), KEY(util_error, 0),
    KEY(clock_error, 0), KEY(lost, 0), KEY(stuck, 0), KEY(calls_fail_every, 0),
    KEY(own_listed, 1), KEY(own_sm, 40), KEY(other_pid, 0), KEY(other_sm, 0),
    KEY(differ, 0), KEY(mig, 0),
};

static State load(void) {
    State state;
    const size_t count = sizeof KEYS / sizeof *KEYS;
    for (size_t i = 0; i < count; i++) *(double *)((char *)&state + KEYS[i].at) = KEYS[i].standard;
    const char *path = getenv("NVML_FAKE_STATE");
    FILE *file = path ? fopen(path, "r") : NULL;
    char key[64];
    double value;
    while (file && fscanf(file, "%63s %lf", key, &value) == 2)
        for (size_t i = 0; i < count; i++)
            if (!strcmp(key, KEYS[i].name)) *(double *)((char *)&state + KEYS[i].at) = value;
    if (file) fclose(file);
    return state;
}

static double now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static long calls;

static int refuse(const State *state, double error) {
    if (state->lost) return 15;
    calls++;
    if (state->calls_fail_every > 0 && calls % (long)state->calls_fail_every == 0) return 999;
    return (int)error;
}

int nvmlInitWithFlags(unsigned flags) { (void)flags; return (int)load().init_error; }
int nvmlInit_v2(void) { return (int)load().init_error; }
int nvmlShutdown(void) { return 0; }

const char *nvmlErrorString(int code) {
    switch (code) {
    case 0: return "Success";
    case 3: return "Not Supported";
    case 4: return "Insufficient Permissions";
    case 6: return "Not Found";
    case 9: return "Driver Not Loaded";
    case 15: return "GPU is lost";
    default: return "Unknown Error";
    }
}

int nvmlSystemGetDriverVersion(char *text, unsigned size) { snprintf(text, size, "000.00"); return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = (unsigned)load().gpus; return 0; }

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) {
    if (index >= load().gpus) return 6;
    *handle = (void *)(uintptr_t)(index + 1);
    return 0;
}

int nvmlDeviceGetHandleByUUID(const char *uuid, void **handle) {
    unsigned index;
    if (sscanf(uuid, "GPU-fake-%u", &index) != 1) return 6;
    return nvmlDeviceGetHandleByIndex_v2(index, handle);
}

int nvmlDeviceGetHandleByPciBusId_v2(const char *address, void **handle) {
    unsigned domain, bus;
    if (sscanf(address, "%x:%x:00.0", &domain, &bus) != 2) return 2;
    return nvmlDeviceGetHandleByIndex_v2(bus - 16, handle);
}

int nvmlDeviceGetMigMode(void *handle, unsigned *current, unsigned *pending) {
    (void)handle;
    if (load().mig < 0) return 3;
    *current = *pending = (unsigned)load().mig;
    return 0;
}

/* `differ`: 1, the GPUs have names of their own; 2, a name that is no text. */
int nvmlDeviceGetName(void *handle, char *text, unsigned size) {
    State state = load();
    if (state.lost) return 15;
    if (state.differ == 2) snprintf(text, size, "Fake \xff\xfe");
    else if (state.differ) snprintf(text, size, "Fake GPU %u", (unsigned)(uintptr_t)handle - 1);
    else snprintf(text, size, "Fake GPU");
    return 0;
}

int nvmlDeviceGetUUID(void *handle, char *text, unsigned size) {
    snprintf(text, size, "GPU-fake-%u", (unsigned)(uintptr_t)handle - 1);
    return 0;
}

int nvmlDeviceGetUtilizationRates(void *handle, unsigned rates[2]) {
    (void)handle;
    State state = load();
    int error = refuse(&state, state.util_error);
    if (error) return error;
    rates[0] = (unsigned)state.gpu_util;
    rates[1] = 0;
    return 0;
}

int nvmlDeviceGetMemoryInfo(void *handle, unsigned long long memory[3]) {
    (void)handle;
    State state = load();
    int error = refuse(&state, 0);
    if (error) return error;
    memory[0] = (unsigned long long)(state.memory_total_mib * 1048576.0);
    memory[2] = (unsigned long long)(state.memory_used_mib * 1048576.0);
    memory[1] = memory[0] - memory[2];
    return 0;
}

int nvmlDeviceGetClockInfo(void *handle, int which, unsigned *mhz) {
    (void)handle;
    State state = load();
    int error = refuse(&state, state.clock_error);
    if (error) return error;
    *mhz = (unsigned)(which == 2 ? state.memory_clock : state.sm_clock);
    return 0;
}

int nvmlDeviceGetMaxClockInfo(void *handle, int which, unsigned *mhz) {
    (void)handle;
    *mhz = which == 2 ? 5000 : 1800;
    return 0;
}

int nvmlDeviceGetTotalEnergyConsumption(void *handle, unsigned long long *mj) {
    /* The counter moves in steps of step_ms: what was drawn since the last step is not seen yet. */
    static double shown = -1, last_s, unseen_mj;
    (void)handle;
    State state = load();
    int error = refuse(&state, state.energy_error);
    if (error) return error;
    if (state.counter_mj >= 0) {
        *mj = (unsigned long long)state.counter_mj;
        return 0;
    }
    double now = now_s();
    if (shown < 0) {
        shown = state.start_mj;
        last_s = now;
    }
    double step_s = 1e-3 * state.step_ms;
    double steps = step_s > 0 ? (double)(long long)(now / step_s) - (double)(long long)(last_s / step_s) : 1;
    unseen_mj += 1e3 * state.power_w * state.counter_ratio * (now - last_s);
    last_s = now;
    if (steps >= 1 && !state.stuck) {
        double phase = step_s > 0 ? now - step_s * (double)(long long)(now / step_s) : 0;
        double behind = 1e3 * state.power_w * state.counter_ratio * phase;
        shown += unseen_mj - behind;
        unseen_mj = behind;
    }
    *mj = (unsigned long long)shown;
    return 0;
}

int nvmlDeviceGetPowerUsage(void *handle, unsigned *mw) {
    (void)handle;
    State state = load();
    int error = refuse(&state, state.power_error);
    if (error) return error;
    *mw = (unsigned)(1e3 * (state.instant_w < 0 ? state.power_w : state.instant_w));
    return 0;
}

typedef struct {
    uint32_t field, scope;
    int64_t timestamp, latency_us;
    int32_t type, result;
    union { double d; unsigned u; unsigned long long ull; } value;
} FieldValue;

int nvmlDeviceGetFieldValues(void *handle, int count, FieldValue *values) {
    State state = load();
    if (state.lost) return 15;
    for (int i = 0; i < count; i++) {
        unsigned mw = 0;
        int known = state.field_supported && values[i].field == 186;
        values[i].type = 1;
        values[i].result = known ? nvmlDeviceGetPowerUsage(handle, &mw) : 3;
        values[i].value.ull = 0;
        values[i].value.u = mw;
    }
    return 0;
}

int nvmlDeviceGetEnforcedPowerLimit(void *handle, unsigned *mw) { (void)handle; *mw = 250000; return 0; }

int nvmlDeviceGetTemperature(void *handle, int sensor, unsigned *celsius) {
    (void)handle; (void)sensor;
    *celsius = (unsigned)load().temperature_c;
    return load().lost ? 15 : 0;
}

int nvmlDeviceGetCurrentClocksThrottleReasons(void *handle, unsigned long long *reasons) {
    (void)handle;
    *reasons = (unsigned long long)load().throttle;
    return 0;
}

int nvmlDeviceGetPersistenceMode(void *handle, int *mode) { (void)handle; *mode = 0; return 0; }

typedef struct { unsigned pid; unsigned long long memory; unsigned instance, compute_instance; } Process;

int nvmlDeviceGetComputeRunningProcesses_v3(void *handle, unsigned *count, Process *found) {
    (void)handle;
    State state = load();
    if (state.lost) return 15;
    unsigned pids[2], n = 0;
    if (state.own_listed) pids[n++] = (unsigned)getpid();
    if (state.other_pid > 0) pids[n++] = (unsigned)state.other_pid;
    if (n && (!found || *count < n)) {
        *count = n;
        return 7;
    }
    *count = n;
    for (unsigned i = 0; i < n; i++) found[i] = (Process){pids[i], 1 << 20, 0xFFFFFFFF, 0xFFFFFFFF};
    return 0;
}

typedef struct { unsigned pid; unsigned long long time_us; unsigned sm, memory, encoder, decoder; } Usage;

int nvmlDeviceGetProcessUtilization(void *handle, Usage *found, unsigned *count, unsigned long long since_us) {
    /* The newest sample of each process, every 50 ms; that there is none since is an error, as in the driver. */
    (void)handle;
    State state = load();
    if (state.lost) return 15;
    unsigned long long time_us = (unsigned long long)(20 * now_s()) * 50000ULL;
    unsigned n = time_us > since_us ? (state.own_sm > 0) + (state.other_sm > 0) : 0;
    if (!n) return 6;
    if (!found || *count < n) {
        *count = n;
        return 7;
    }
    *count = 0;
    if (state.own_sm > 0) found[(*count)++] = (Usage){(unsigned)getpid(), time_us, (unsigned)state.own_sm, 0, 0, 0};
    if (state.other_sm > 0)
        found[(*count)++] = (Usage){(unsigned)state.other_pid, time_us, (unsigned)state.other_sm, 0, 0, 0};
    return 0;
}
