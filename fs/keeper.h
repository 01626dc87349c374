/* Keeper and server: who holds what, and the words they exchange.
 *
 * The keeper (program `aetherfs`) links libc and libfuse's mount call alone. It mounts the control file system, then the
 * overlay, holds both /dev/fuse descriptors (close-on-exec), the memfd of fs/shared.h and stashed descriptors, and starts
 * the server (program `aetherfs-server`), again whenever it dies. It is the sub-reaper of everything below. The server inherits:
 *
 *   fd 3 overlay /dev/fuse   fd 4 control /dev/fuse   fd 5 memfd   fd 6 the covered directory (O_RDONLY|O_DIRECTORY)
 *   fd 7 socket to the keeper (SOCK_SEQPACKET)        fd 8 pidfd of the keeper
 *   fd 9 the lock of the workspace: free only when keeper and server are both gone
 *
 * Messages are struct keeper_message, one a packet, with at most one descriptor by SCM_RIGHTS.
 */
#ifndef FS_KEEPER_H
#define FS_KEEPER_H

#include <stdint.h>

enum { KEEPER_FD_OVERLAY = 3, KEEPER_FD_CONTROL, KEEPER_FD_SHARED, KEEPER_FD_ROOT, KEEPER_FD_SOCKET, KEEPER_FD_PIDFD, KEEPER_FD_LOCK };

#define KEEPER_PINGS 6 /* so many in the watchdog's time; one is on its way at a time */

enum keeper_message_type {
	/* server -> keeper */
	KEEPER_READY = 1, /* both sessions answer: the mount command may return */
	KEEPER_FAILED,    /* could not start; text is a JSON error object. From the first server it is final: the keeper unmounts and ends */
	KEEPER_STASH,     /* + descriptor: keep it under `key` for the next server */
	KEEPER_UNSTASH,   /* close what is kept under `key` */
	KEEPER_ENDING,    /* a mount is gone: services are being stopped, KEEPER_DONE comes within KEEPER_STOP_MS */
	KEEPER_DONE,      /* services are stopped: unmount what is left and end. key 1: the environment is forgotten, its state directory goes too */
	KEEPER_DETACH,    /* the workspace is being removed: take both mounts away, lazily, and say KEEPER_DETACHED; the end as after KEEPER_ENDING */
	KEEPER_PONG,
	/* keeper -> server */
	KEEPER_RESTORE,   /* + descriptor: what an earlier server stashed under `key`; sent before anything else */
	KEEPER_RESTORED,  /* no more of them */
	KEEPER_STOP,      /* stop the services, then say KEEPER_DONE */
	KEEPER_DETACHED,  /* key: 0, or 1: it is still mounted */
	KEEPER_PING       /* say KEEPER_PONG, from the loop: a server that is stopped, or hangs, is replaced */
};

#define KEEPER_TEXT_MAX 4096
#define KEEPER_STASH_MAX 4096      /* descriptors held for servers to come */
#define KEEPER_RESTARTS_MAX 8      /* more servers than this die young within the window: give up, unmount */
#define KEEPER_RESTARTS_WINDOW_MS 10000
#define KEEPER_RESTARTS_YOUNG_MS 250   /* young, or without ever having said KEEPER_READY */

struct keeper_message {
	uint32_t type;
	uint32_t key; /* node index */
	char text[KEEPER_TEXT_MAX]; /* KEEPER_FAILED; sent only as long as it is */
};

#endif
