/* What ajj exits with; `ajj --help` prints this table. Commands that go to jj, `ajj run` and `ajj exec` exit with what those say. */
#ifndef CLI_EXIT_CODES_H
#define CLI_EXIT_CODES_H

#define EXIT_CODES(X)                                                                       \
	X(DONE, 0, "done")                                                                      \
	X(FAILED, 1, "failed: the error says why")                                              \
	X(USAGE, 2, "the command line is wrong")                                                \
	X(NOT_FOUND, 3, "no such thing: repository, workspace, mount, configuration, service") \
	X(NOT_READY, 4, "a service was not ready in time")                                      \
	X(CANNOT_RUN, 126, "run, exec: the command cannot be executed")                         \
	X(NO_COMMAND, 127, "run, exec: there is no such command")                               \
	X(INTERRUPTED, 130, "interrupted")

enum exit_code {
#define X(name, value, text) EXIT_CODE_##name = value,
	EXIT_CODES(X)
#undef X
};

#endif
