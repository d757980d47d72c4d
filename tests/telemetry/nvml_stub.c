/* A libnvidia-ml.so.1 for machines without a GPU, written from the public ABI of nvml.h.
 *
 * pynvml loads it like the real one. What its GPUs do stands in a file (environment variable NVML_STUB_STATE) that every process maps
 * shared, so a test changes it while the code under test, in another process, reads. Layout: nvml_stub.py.
 * Rates integrate from t0 on; whoever changes a rate moves t0 and the base of its integral along, so that counters never jump.
 * Built with -DOLD_DRIVER it lacks what drivers before R570 and GPUs before Hopper lack: pynvml then finds no such function.
 *
 * cc -O2 -shared -fPIC -Wl,-soname,libnvidia-ml.so.1 -o libnvidia-ml.so.1 nvml_stub.c
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define API __attribute__((visibility("default")))
#define MAX_GPUS 16
enum { OK = 0, UNINITIALIZED = 1, INVALID = 2, UNSUPPORTED = 3, NOT_FOUND = 6, TOO_SMALL = 7, BAD_VERSION = 25 };

/* One GPU: doubles in the order of nvml_stub.py FIELDS. fault_* is an nvmlReturn that the calls of its kind give back. */
typedef struct {
  double mem_total, mem_reserved, mem_used;             /* bytes */
  double busy_pct, busy_before_pct;                     /* since t0, and before */
  double power_w, power_limit_w, energy_base_j, t0;     /* t0: wall clock, s */
  double sm_pct, occupancy_pct, tensor_pct, dram_pct, pcie_tx_mib, pcie_rx_mib;
  double sm_base, occupancy_base, tensor_base, dram_base, pcie_tx_base, pcie_rx_base; /* integrals at t0 */
  double sm_clock_mhz, mem_clock_mhz, temperature_c, throttle_reasons;
  double throttle_share, throttle_base_s;               /* of the time since t0 that the power cap held the clock down */
  double busy_period_s, latency_us, processes, gpm, gpm_nan, gpm_id_max;
  double fault, fault_gpm, fault_busy, fault_energy, fault_fields, fault_power, fault_memory;
  double process_pid, process_bytes;                    /* of the first process; the others count on from it */
} gpu_t;
typedef struct { double gpus, driver_branch; gpu_t gpu[MAX_GPUS]; } state_t;
typedef struct { int index; } device_t;

static state_t *S;
static int opened;
static device_t devices[MAX_GPUS];

static double now(void) { struct timespec t; clock_gettime(CLOCK_REALTIME, &t); return t.tv_sec + t.tv_nsec * 1e-9; }

#define DEVICE(handle)                                                             \
  if (!opened) return UNINITIALIZED;                                               \
  device_t *device = (device_t *)(handle);                                         \
  if (device < devices || device >= devices + MAX_GPUS) return INVALID;            \
  gpu_t *g = &S->gpu[device->index];                                               \
  if (g->latency_us > 0) usleep((useconds_t)g->latency_us);                        \
  if (g->fault) return (int)g->fault;
#define FAULT(kind) if (g->fault_##kind) return (int)g->fault_##kind;

API int nvmlInitWithFlags(unsigned flags) {
  (void)flags;
  if (!S) {
    const char *path = getenv("NVML_STUB_STATE");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0) return 9; /* driver not loaded */
    S = mmap(0, sizeof(state_t), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (S == MAP_FAILED) { S = 0; return 999; }
  }
  for (int i = 0; i < MAX_GPUS; i++) devices[i].index = i;
  opened++;
  return OK;
}
API int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
API int nvmlInit(void) { return nvmlInitWithFlags(0); }
API int nvmlShutdown(void) { if (!opened) return UNINITIALIZED; opened--; return OK; }
API const char *nvmlErrorString(int code) { (void)code; return "stub"; }

/* What does not change */
API int nvmlSystemGetDriverVersion(char *text, unsigned size) { snprintf(text, size, "%d.65.06", (int)S->driver_branch); return OK; }
API int nvmlSystemGetCudaDriverVersion_v2(int *version) { *version = 13000; return OK; }
API int nvmlDeviceGetCount_v2(unsigned *count) { if (!opened) return UNINITIALIZED; *count = (unsigned)S->gpus; return OK; }
API int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **handle) { if (i >= S->gpus) return INVALID; *handle = &devices[i]; return OK; }
API int nvmlDeviceGetHandleByUUID(const char *uuid, void **handle) {
  unsigned i;
  if (sscanf(uuid, "GPU-%8x", &i) != 1 || i >= S->gpus) return NOT_FOUND;
  if (S->gpu[i].fault) return (int)S->gpu[i].fault;
  *handle = &devices[i];
  return OK;
}
API int nvmlDeviceGetUUID(void *h, char *text, unsigned size) { DEVICE(h); snprintf(text, size, "GPU-%08x-0000-0000-0000-000000000000", device->index); return OK; }
API int nvmlDeviceGetName(void *h, char *text, unsigned size) { DEVICE(h); snprintf(text, size, "NVIDIA Stub"); return OK; }
API int nvmlDeviceGetCudaComputeCapability(void *h, int *major, int *minor) { DEVICE(h); *major = 9; *minor = 0; return OK; }
API int nvmlDeviceGetEnforcedPowerLimit(void *h, unsigned *mw) { DEVICE(h); *mw = g->power_limit_w * 1000; return OK; }
API int nvmlDeviceGetMaxClockInfo(void *h, int kind, unsigned *mhz) { DEVICE(h); *mhz = kind == 2 ? 3201 : 1980; return OK; }
API int nvmlDeviceGetPersistenceMode(void *h, unsigned *mode) { DEVICE(h); *mode = 1; return OK; }
API int nvmlDeviceGetMigMode(void *h, unsigned *current, unsigned *pending) { DEVICE(h); *current = *pending = 0; return OK; }
API int nvmlDeviceGetEccMode(void *h, unsigned *current, unsigned *pending) { DEVICE(h); *current = 1; *pending = 0; return OK; }
API int nvmlDeviceGetCurrPcieLinkGeneration(void *h, unsigned *gen) { DEVICE(h); *gen = 5; return OK; }
API int nvmlDeviceGetCurrPcieLinkWidth(void *h, unsigned *width) { DEVICE(h); *width = 8; return OK; }
API int nvmlDeviceGetMaxPcieLinkGeneration(void *h, unsigned *gen) { DEVICE(h); *gen = 5; return OK; }
API int nvmlDeviceGetMaxPcieLinkWidth(void *h, unsigned *width) { DEVICE(h); *width = 16; return OK; }

/* Gauges and counters */
static double since(gpu_t *g) { return now() - g->t0; }
static double energy_mj(gpu_t *g) { return 1000 * (g->energy_base_j + since(g) * g->power_w); }

typedef struct { unsigned long long total, free, used; } memory_t;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } memory_v2_t;
API int nvmlDeviceGetMemoryInfo(void *h, memory_t *m) {
  DEVICE(h); FAULT(memory);
  m->total = g->mem_total; m->used = g->mem_used + g->mem_reserved; m->free = m->total - m->used;
  return OK;
}
API int nvmlDeviceGetPowerUsage(void *h, unsigned *mw) { DEVICE(h); *mw = g->power_w * 1000; return OK; }
API int nvmlDeviceGetTotalEnergyConsumption(void *h, unsigned long long *mj) { DEVICE(h); FAULT(energy); *mj = energy_mj(g); return OK; }
API int nvmlDeviceGetClockInfo(void *h, int kind, unsigned *mhz) { DEVICE(h); *mhz = kind == 2 ? g->mem_clock_mhz : g->sm_clock_mhz; return OK; }
API int nvmlDeviceGetTemperature(void *h, unsigned sensor, unsigned *c) { DEVICE(h); (void)sensor; *c = g->temperature_c; return OK; }
API int nvmlDeviceGetCurrentClocksEventReasons(void *h, unsigned long long *bits) { DEVICE(h); *bits = g->throttle_reasons; return OK; }
typedef struct { unsigned gpu, memory; } rates_t;
API int nvmlDeviceGetUtilizationRates(void *h, rates_t *r) { DEVICE(h); r->gpu = g->busy_pct; r->memory = 0; return OK; }

/* The history of utilisation: each sample the average over the period that ends with it, across at most one change, at t0. */
typedef union { double d; unsigned u; unsigned long long ull; } value_t;
typedef struct { unsigned long long us; value_t v; } sample_t;
API int nvmlDeviceGetSamples(void *h, int kind, unsigned long long last_us, unsigned *type, unsigned *count, sample_t *samples) {
  DEVICE(h); FAULT(busy);
  if (kind != 1) return UNSUPPORTED;
  unsigned found = 0, room = samples ? *count : 120;
  double period = g->busy_period_s, newest = floor(now() / period) * period;
  for (int i = 119; i >= 0 && found < room; i--) {
    double end = newest - i * period, start = end - period;
    if (end * 1e6 <= last_us + 1.0) continue;
    double before = fmin(1, fmax(0, (g->t0 - start) / period));
    if (samples) { samples[found].us = end * 1e6; samples[found].v.ull = 0; samples[found].v.u = lround(before * g->busy_before_pct + (1 - before) * g->busy_pct); }
    found++;
  }
  *type = 1;
  *count = found;
  return found ? OK : NOT_FOUND;
}

typedef struct { unsigned id, scope; long long us, latency_us; unsigned type; int code; value_t v; } field_t;
API int nvmlDeviceGetFieldValues(void *h, int n, field_t *fields) {
  DEVICE(h);
  for (field_t *f = fields; f < fields + n; f++) {
    f->us = now() * 1e6; f->latency_us = 10; f->type = 3; f->v.ull = 0; f->code = (int)g->fault_fields;
    if (f->code) continue;
    switch (f->id) {
      case 186: f->code = (int)g->fault_power; f->type = 1; f->v.u = g->power_w * 1000; break;
      case 74: f->v.ull = (g->throttle_base_s + since(g) * g->throttle_share) * 1e9; break;
      case 75: case 76: case 77: break;
      /* Of drivers before R590 these ids are power-smoothing profile figures, and a read of them succeeds. */
      case 269: case 270: case 271: f->v.ull = S->driver_branch < 590 ? 123456789012345ull : 0; break;
      default: f->code = UNSUPPORTED;
    }
  }
  return OK;
}
typedef struct { unsigned pid; unsigned long long bytes; unsigned gpu_instance, compute_instance; } process_t;
API int nvmlDeviceGetComputeRunningProcesses_v3(void *h, unsigned *n, process_t *p) {
  DEVICE(h);
  unsigned room = *n;
  *n = (unsigned)g->processes;
  if (!*n) return OK;
  if (!p || room < *n) return TOO_SMALL;
  memset(p, 0, *n * sizeof *p);
  for (unsigned i = 0; i < *n; i++) { p[i].pid = (unsigned)g->process_pid + i; p[i].bytes = (unsigned long long)g->process_bytes; }
  return OK;
}

#ifndef OLD_DRIVER
typedef struct { unsigned version, sensor; int c; } temperature_t;
API int nvmlDeviceGetTemperatureV(void *h, temperature_t *t) { DEVICE(h); t->c = (int)g->temperature_c; return OK; }
API int nvmlDeviceGetMemoryInfo_v2(void *h, memory_v2_t *m) {
  DEVICE(h); FAULT(memory);
  if (m->version != 0x02000028) return BAD_VERSION;
  m->total = g->mem_total; m->reserved = g->mem_reserved; m->used = g->mem_used; m->free = m->total - m->used - m->reserved;
  return OK;
}

/* GPM: a sample holds integrals, a metric is the difference of two over their time. The same sample twice is 0/0, as it really is. */
typedef struct { double t, sm, occupancy, tensor, dram, tx, rx; int index, filled; } gpm_sample_t;
typedef struct { unsigned version, supported; } gpm_support_t;
typedef struct { unsigned id; int code; double value; char *names[3]; } gpm_metric_t;
typedef struct { unsigned version, n; gpm_sample_t *a, *b; gpm_metric_t metrics[1]; } gpm_get_t;
API int nvmlGpmQueryDeviceSupport(void *h, gpm_support_t *s) { DEVICE(h); s->supported = g->gpm != 0; return OK; }
API int nvmlGpmSampleAlloc(gpm_sample_t **s) { *s = calloc(1, sizeof **s); return OK; }
API int nvmlGpmSampleFree(gpm_sample_t *s) { free(s); return OK; }
API int nvmlGpmSampleGet(void *h, gpm_sample_t *s) {
  DEVICE(h); FAULT(gpm);
  if (!g->gpm) return UNSUPPORTED;
  double dt = since(g);
  *s = (gpm_sample_t){.t = g->t0 + dt, .index = device->index, .filled = 1,
    .sm = g->sm_base + g->sm_pct * dt, .occupancy = g->occupancy_base + g->occupancy_pct * dt,
    .tensor = g->tensor_base + g->tensor_pct * dt, .dram = g->dram_base + g->dram_pct * dt,
    .tx = g->pcie_tx_base + g->pcie_tx_mib * dt, .rx = g->pcie_rx_base + g->pcie_rx_mib * dt};
  return OK;
}
API int nvmlGpmMetricsGet(gpm_get_t *get) {
  gpm_sample_t *a = get->a, *b = get->b;
  if (get->version != 1 || !a || !b || !a->filled || !b->filled || b->t < a->t) return INVALID; /* old, new */
  gpu_t *g = &S->gpu[a->index];
  for (gpm_metric_t *m = get->metrics; m < get->metrics + get->n; m++) {
    double delta = 0;
    m->code = OK;
    if (m->id > g->gpm_id_max) { m->code = INVALID; continue; }
    switch (m->id) {
      case 2: delta = b->sm - a->sm; break;
      case 3: delta = b->occupancy - a->occupancy; break;
      case 5: delta = b->tensor - a->tensor; break;
      case 10: delta = b->dram - a->dram; break;
      case 20: delta = b->tx - a->tx; break;
      case 21: delta = b->rx - a->rx; break;
      default: m->code = UNSUPPORTED; continue; /* no NVLink here */
    }
    m->value = g->gpm_nan ? NAN : delta / (b->t - a->t);
  }
  return OK;
}
#endif
