/* os_windows.c - os.h for Windows: memory, threads, cores, clock, CPU.  Files are in os_windows_files.c. */
#define WIN32_LEAN_AND_MEAN
#define _WIN32_WINNT 0x0601 /* Windows 7: groups of processors */
#include <windows.h>

#include <malloc.h>
#include <stdlib.h>

#include "common/os.h"

/* ---- Memory ---- */

void *os_alloc(size_t n_bytes) { return _aligned_malloc(n_bytes ? n_bytes : 1, 64); }

/* Large pages want a privilege that users have not. */
void *os_alloc_large(size_t n_bytes) { return os_alloc(n_bytes); }

void os_free(void *block) { _aligned_free(block); }

/* ---- Locks ---- */

_Static_assert(sizeof(SRWLOCK) == sizeof(os_mutex), "os_mutex holds an SRWLOCK");
_Static_assert(sizeof(CONDITION_VARIABLE) == sizeof(os_condition), "os_condition holds a CONDITION_VARIABLE");
_Static_assert(sizeof(INIT_ONCE) == sizeof(os_once), "os_once holds an INIT_ONCE");

static SRWLOCK *lock_of(os_mutex *mutex) { return (SRWLOCK *)(void *)mutex; }

void os_mutex_init(os_mutex *mutex) { InitializeSRWLock(lock_of(mutex)); }
void os_mutex_lock(os_mutex *mutex) { AcquireSRWLockExclusive(lock_of(mutex)); }
void os_mutex_unlock(os_mutex *mutex) { ReleaseSRWLockExclusive(lock_of(mutex)); }
void os_mutex_destroy(os_mutex *mutex) { (void)mutex; }

static CONDITION_VARIABLE *variable_of(os_condition *condition) { return (CONDITION_VARIABLE *)(void *)condition; }

void os_condition_init(os_condition *condition) { InitializeConditionVariable(variable_of(condition)); }

void os_condition_wait(os_condition *condition, os_mutex *mutex) {
    SleepConditionVariableSRW(variable_of(condition), lock_of(mutex), INFINITE, 0);
}

void os_condition_wake_all(os_condition *condition) { WakeAllConditionVariable(variable_of(condition)); }
void os_condition_destroy(os_condition *condition) { (void)condition; }

static BOOL CALLBACK call(PINIT_ONCE once, PVOID f, PVOID *context) {
    (void)once;
    (void)context;
    (*(void (**)(void))f)();
    return TRUE;
}

void os_call_once(os_once *once, void (*f)(void)) { InitOnceExecuteOnce((PINIT_ONCE)(void *)once, call, &f, NULL); }

/* ---- Threads ---- */

static DWORD WINAPI thread_main(LPVOID arg) {
    os_thread *self = arg;
    self->run(self->arg);
    return 0;
}

bool os_thread_start(os_thread *thread, void (*run)(void *arg), void *arg) {
    thread->run = run;
    thread->arg = arg;
    thread->handle = CreateThread(NULL, 0, thread_main, thread, 0, NULL);
    return thread->handle != NULL;
}

void os_thread_join(os_thread *thread) {
    WaitForSingleObject(thread->handle, INFINITE);
    CloseHandle(thread->handle);
}

/* There is no fork. */
void os_hold_forks(void) {}
void os_allow_forks(void) {}
int64_t os_process_id(void) { return 0; }

void os_yield(void) { SwitchToThread(); }

/* ---- Cores and clock ---- */

static int bits_of(DWORD_PTR mask) {
    int n = 0;
    for (; mask; mask &= mask - 1) n++;
    return n;
}

/* The mask knows the process's own group of at most 64 processors; what runs in several groups has none. */
fastgpt_cores os_cores(void) {
    DWORD_PTR process = 0, system = 0;
    GetProcessAffinityMask(GetCurrentProcess(), &process, &system);
    fastgpt_cores cores = {.online = (int)GetActiveProcessorCount(ALL_PROCESSOR_GROUPS), .affinity = bits_of(process)};
    cores.usable = cores.affinity > 0 ? cores.affinity : cores.online;
    if (cores.usable < 1) cores.usable = 1;
    return cores;
}

int os_cgroup_cores(const char *root) {
    (void)root;
    return 0;
}

int64_t os_nanoseconds(void) {
    LARGE_INTEGER now, frequency;
    QueryPerformanceCounter(&now);
    QueryPerformanceFrequency(&frequency);
    int64_t seconds = now.QuadPart / frequency.QuadPart, rest = now.QuadPart % frequency.QuadPart;
    return seconds * 1000000000 + rest * 1000000000 / frequency.QuadPart;
}

/* ---- CPU ---- */

enum { MAX_PROCESSORS = 256 };

size_t os_cache_bytes(void) {
    SYSTEM_LOGICAL_PROCESSOR_INFORMATION found[MAX_PROCESSORS];
    DWORD n_bytes = sizeof found;
    size_t most = 0;
    if (!GetLogicalProcessorInformation(found, &n_bytes)) return 0;
    for (size_t i = 0; i < n_bytes / sizeof *found; i++) {
        const SYSTEM_LOGICAL_PROCESSOR_INFORMATION *one = &found[i];
        if (one->Relationship == RelationCache && one->Cache.Level == 3 && one->Cache.Size > most)
            most = one->Cache.Size;
    }
    return most;
}

#if defined(__x86_64__)

/* Windows 11 gives the state of the tiles to processes that ask; older ones lack the function. */
bool os_may_use_tiles(void) {
    enum { TILE_DATA = 18 };
    typedef BOOL(WINAPI * enable_states)(DWORD64 states);
    HMODULE kernel = GetModuleHandleW(L"kernel32.dll");
    void *found = kernel ? (void *)(size_t)GetProcAddress(kernel, "EnableProcessOptionalXStateFeatures") : NULL;
    return found && ((enable_states)(size_t)found)((DWORD64)1 << TILE_DATA);
}

#elif defined(__aarch64__)

unsigned os_cpu_features(void) {
    enum { DOT_PRODUCTS = 43 }; /* PF_ARM_V82_DP_INSTRUCTIONS_AVAILABLE */
    return OS_CPU_NEON | (IsProcessorFeaturePresent(DOT_PRODUCTS) ? OS_CPU_DOTPROD : 0);
}

#endif

bool os_is_little_endian(void) { return true; }
