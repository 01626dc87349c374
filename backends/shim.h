/* aetherfs-shim and the process backend: who holds what, and the words they exchange.
 *
 * One shim per service. It links libc alone, has one thread, and outlives the server that started it: its parent dies,
 * a new server finds it by its record. It inherits
 *
 *   fd 0 /dev/null      fd 1, 2 /dev/null (a service; its log is opened by the shim) or the output (a program run once)
 *   fd 3 the order: a memfd of NUL-terminated "key=value" strings (keys: the table in shim_order.c); a service's
 *        stays open, for whoever runs something beside it
 *   fd 4 a pidfd: when that process ends, everything here ends
 *   fd 5 status pipe, to the backend: lines, see below. The backend may be gone: EPIPE is nothing
 *   fd 6 the locked lock file   fd 7 the service's directory   (both of a service alone)
 *
 * Status lines:  "started PID"   "failed STAGE ERRNO"   "exit CODE" and "timeout" (of a program run once)
 *
 * To stop, the backend queues SHIM_SIGNAL_STOP with a value (pidfd_send_signal(2) with SI_QUEUE): there is no socket that
 * could be forgotten, full or somebody else's.
 *
 * The lock (an open file description lock, fcntl(2)) is never given back: it ends when the last process that inherited
 * descriptor SHIM_SERVICE_LOCK_FD has ended. That is the proof of ownership, and of its absence. */
#ifndef BACKENDS_SHIM_H
#define BACKENDS_SHIM_H

#include <signal.h>
#include <stdint.h>

enum { SHIM_FD_ORDER = 3, SHIM_FD_WATCH, SHIM_FD_STATUS, SHIM_FD_LOCK, SHIM_FD_DIRECTORY, SHIM_FD_END };

/* Where the service finds the lock: high enough that no script says `exec 3>`, low enough that the table of descriptors
 * stays small. */
#define SHIM_SERVICE_LOCK_FD 131

#define SHIM_LOG_MAX (5u << 20)        /* bytes of `log`; then it becomes `log.1` */
#define SHIM_ORPHAN_GRACE_MS 2000      /* at most, between the stop signal and the kill, when the watched process has ended */
#define SHIM_RECORD_MAX 4096           /* bytes of `record` */
#define SHIM_EXIT_SIZE 64              /* bytes of `exit`, allocated before the service runs: a full disk cannot refuse it */

#define SHIM_SIGNAL_STOP (SIGRTMIN + 1)

/* A grace without an end: the signal is sent and nothing follows. Who stops so looks after it itself. */
#define SHIM_GRACE_NONE 0xffffffffu

/* The value of a stop: the signal in the low byte, the grace above it. */
static inline uint64_t shim_stop_value(int signal, unsigned grace_ms)
{
	return (uint64_t)grace_ms << 8 | (uint8_t)signal;
}

static inline int shim_stop_signal(uint64_t value)
{
	return (int)(value & 0xff);
}

static inline unsigned shim_stop_grace_ms(uint64_t value)
{
	return (unsigned)(value >> 8);
}

#endif
