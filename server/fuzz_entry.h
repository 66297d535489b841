/*
 * The daemon for a fuzzer: everything but listeners, on a thread of its own, reached through socket
 * pairs. One in a process; it is not ended.
 */
#ifndef SPB_SERVER_FUZZ_ENTRY_H
#define SPB_SERVER_FUZZ_ENTRY_H

/* Starts it on a data directory (made if absent). 0; or -1, after saying why on stderr. */
int spb_server_fuzz_start(const char *data_dir);

/*
 * A socket connected to it, the caller's to close; -1 where there is none to be had. Its principal
 * is "local". Any thread.
 */
int spb_server_fuzz_connect(void);

#endif
