/* The control file system mounted for real: what is written. */
#include "control_harness.h"

/* ---- env ---------------------------------------------------------------------------------------------------------- */

static void text_is_applied_at_close(void **state)
{
	int fd = open(at("env"), O_WRONLY | O_TRUNC);
	assert_return_code(fd, errno);
	assert_int_equal(write(fd, "X=1\n", 4), 4);
	assert_int_equal(write(fd, "Y=2\n", 4), 4);
	assert_int_equal(fake->writes, 0);
	assert_return_code(close(fd), errno);
	assert_int_equal(fake->writes, 1);
	assert_string_equal(fake->written, "X=1\nY=2\n");
	fake->ready = true;
	expect_text("env", "X=1\nY=2\n"); /* by whoever opens it next */
	assert_int_equal(fake->demands, 1);
}

static void appending_adds_to_what_is_there(void **state)
{
	assert_int_equal(put("env", "X=1\n", O_APPEND), 0);
	assert_string_equal(fake->written, "A=1\nX=1\n");
	assert_int_equal(put("env", "Y=2\n", O_APPEND | O_CREAT), 0);
	assert_string_equal(fake->written, "A=1\nX=1\nY=2\n");
}

static void the_shell_appends_and_replaces(void **state)
{
	char command[1024];
	snprintf(command, sizeof command, "cd %s && echo X=1 >> env && (echo Y=2; echo Z=3) >> env", m.dir);
	assert_int_equal(system(command), 0);
	assert_string_equal(fake->written, "A=1\nX=1\nY=2\nZ=3\n");
	snprintf(command, sizeof command, "cd %s && echo NEW=1 > env", m.dir);
	assert_int_equal(system(command), 0);
	assert_string_equal(fake->written, "NEW=1\n");
	snprintf(command, sizeof command, "cd %s && : > env", m.dir);
	assert_int_equal(system(command), 0);
	eventually(fake->written_len == 0);
	assert_int_equal(fake->demands, 0);
}

static void two_who_append_at_once_both_stand(void **state)
{
	int a = open(at("env"), O_WRONLY | O_APPEND), b = open(at("env"), O_WRONLY | O_APPEND);
	assert_int_equal(write(a, "X=1\n", 4), 4);
	assert_int_equal(write(b, "Y=2\n", 4), 4);
	close(a);
	close(b);
	assert_string_equal(fake->written, "A=1\nX=1\nY=2\n");
}

static void truncation_counts_at_the_last_close(void **state)
{
	int fd = open(at("env"), O_WRONLY | O_TRUNC), copy = dup(fd);
	assert_return_code(fd, errno);
	close(copy); /* as the shell does before its command has written */
	usleep(20000);
	assert_int_equal(fake->writes, 0);
	assert_string_equal(fake->env, "A=1\n");
	close(fd);
	eventually(fake->writes == 1);
	assert_int_equal(fake->written_len, 0);
}

static void writing_in_place_keeps_the_rest(void **state)
{
	int fd = open(at("env"), O_WRONLY);
	assert_int_equal(pwrite(fd, "9", 1, 2), 1);
	close(fd);
	assert_string_equal(fake->written, "A=9\n");
	fd = open(at("env"), O_WRONLY);
	assert_return_code(ftruncate(fd, 2), errno);
	assert_int_equal(pwrite(fd, "7\n", 2, 2), 2);
	close(fd);
	assert_string_equal(fake->written, "A=7\n");
}

static void a_writer_reads_what_it_wrote(void **state)
{
	char text[64] = "";
	fake->ready = true;
	int fd = open(at("env"), O_RDWR);
	assert_int_equal(pwrite(fd, "5", 1, 2), 1);
	assert_int_equal(pread(fd, text, sizeof text, 0), 4);
	assert_string_equal(text, "A=5\n");
	close(fd);
	fd = open(at("env"), O_RDWR | O_APPEND);
	assert_int_equal(write(fd, "B=1\n", 4), 4);
	memset(text, 0, sizeof text);
	assert_int_equal(pread(fd, text, sizeof text, 0), 8);
	assert_string_equal(text, "A=5\nB=1\n");
	close(fd);
	assert_string_equal(fake->written, "A=5\nB=1\n");
}

static void truncate_by_path_is_applied_at_once(void **state)
{
	strcpy(fake->env, "A=1\nB=2\n");
	assert_return_code(truncate(at("env"), 4), errno);
	assert_string_equal(fake->written, "A=1\n");
	assert_return_code(truncate(at("env"), 0), errno);
	assert_int_equal(fake->written_len, 0);
	expect_errno(EACCES, truncate(at("ports"), 0));
	expect_errno(EACCES, truncate(at("status.json"), 0));
}

static void opening_to_write_and_closing_changes_nothing(void **state)
{
	int fd = open(at("env"), O_WRONLY);
	close(fd);
	fd = open(at("env"), O_WRONLY | O_APPEND);
	close(fd);
	usleep(20000);
	assert_int_equal(fake->writes, 0);
}

static void a_failure_to_keep_it_is_the_errno_of_close(void **state)
{
	fake->demand_errno = ENOSPC;
	assert_int_equal(put("env", "X=1\n", O_TRUNC), ENOSPC);
}

static void too_much_is_too_much(void **state)
{
	int fd = open(at("env"), O_WRONLY);
	expect_errno(EFBIG, (int)pwrite(fd, "x", 1, 2 << 20));
	expect_errno(EFBIG, ftruncate(fd, 2 << 20));
	close(fd);
	expect_errno(EFBIG, truncate(at("env"), 2 << 20));
}

static void the_rest_cannot_be_written(void **state)
{
	static const char *const names[] = {"ports", "env.json", "env.container", "status.json", "env.own", "events", "errors.json",
	                                    "services/db/url", "services/db/state", "services/db/log"};
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		expect_errno(EACCES, open(at(names[i]), O_WRONLY));
		expect_errno(EACCES, open(at(names[i]), O_RDWR));
		expect_errno(EACCES, open(at(names[i]), O_WRONLY | O_TRUNC));
		expect_errno(EACCES, open(at(names[i]), O_WRONLY | O_APPEND));
	}
	assert_int_equal(fake->demands, 0);
}

static void modes_owners_and_times_are_taken(void **state)
{
	struct stat before, after;
	struct timespec times[2] = {{1, 0}, {2, 0}};
	assert_return_code(stat(at("env"), &before), errno);
	assert_return_code(chmod(at("env"), 0644), errno);
	assert_return_code(chown(at("env"), geteuid(), (gid_t)-1), errno);
	assert_return_code(utimensat(AT_FDCWD, at("env"), times, 0), errno);
	assert_return_code(utimensat(AT_FDCWD, at("env"), NULL, 0), errno);
	assert_return_code(stat(at("env"), &after), errno);
	assert_int_equal(after.st_mode, before.st_mode);
	assert_memory_equal(&after.st_mtim, &before.st_mtim, sizeof after.st_mtim);
	assert_int_equal(fake->demands + fake->writes, 0);
}

/* ---- an editor ---------------------------------------------------------------------------------------------------- */

static void a_scratch_file_is_a_file(void **state)
{
	char text[64] = "";
	struct stat st;
	int fd = open(at(".env.swp"), O_RDWR | O_CREAT | O_EXCL, 0640);
	assert_return_code(fd, errno);
	assert_int_equal(write(fd, "swap", 4), 4);
	assert_int_equal(lseek(fd, 0, SEEK_END), 4);
	assert_int_equal(pwrite(fd, "end", 3, 5000), 3);
	assert_return_code(fsync(fd), errno);
	assert_return_code(fstat(fd, &st), errno);
	assert_int_equal(st.st_size, 5003);
	assert_int_equal(pread(fd, text, 8, 0), 8);
	assert_memory_equal(text, "swap\0\0\0\0", 8);
	assert_return_code(ftruncate(fd, 2), errno);
	assert_return_code(fchmod(fd, 0600), errno);
	expect_errno(EEXIST, open(at(".env.swp"), O_RDWR | O_CREAT | O_EXCL, 0640));
	assert_return_code(rename(at(".env.swp"), at("other")), errno);
	assert_return_code(stat(at("other"), &st), errno);
	assert_int_equal(st.st_size, 2);
	assert_int_equal(st.st_mode, S_IFREG | 0600);
	assert_return_code(unlink(at("other")), errno);
	expect_errno(ENOENT, stat(at("other"), &st));
	assert_int_equal(pread(fd, text, 8, 0), 2); /* open still */
	assert_int_equal(pwrite(fd, "abc", 3, 0), 3);
	close(fd);
	eventually(m.shared->scratch[0].state == SCRATCH_FREE);
	assert_int_equal(put("appended", "a", O_CREAT | O_APPEND), 0);
	assert_int_equal(put("appended", "b", O_CREAT | O_APPEND), 0);
	expect_text("appended", "ab");
	assert_int_equal(put("appended", "c", O_CREAT | O_TRUNC), 0);
	expect_text("appended", "c");
	assert_int_equal(fake->demands + fake->writes, 0);
}

static void scratch_files_are_bounded(void **state)
{
	char name[32];
	int made = 0;
	for (int i = 0; i < 200; i++) {
		snprintf(name, sizeof name, "file%d", i);
		int fd = open(at(name), O_WRONLY | O_CREAT, 0600);
		if (fd < 0) {
			assert_int_equal(errno, ENOSPC);
			break;
		}
		close(fd);
		made++;
	}
	assert_int_equal(made, SHARED_SCRATCH_MAX);
	static char block[1 << 20];
	int fd = open(at("file0"), O_WRONLY);
	ssize_t n = 0;
	for (int i = 0; i < 64 && n >= 0; i++)
		n = write(fd, block, sizeof block);
	assert_int_equal(n, -1);
	assert_int_equal(errno, ENOSPC);
	close(fd);
	assert_return_code(unlink(at("file0")), errno);
	assert_int_equal(put("file1", "x", 0), 0);
}

static void what_is_renamed_over_env_is_its_text(void **state)
{
	uint64_t before = ino_of("env");
	assert_int_equal(put("env.new", "R=1\n", O_CREAT | O_EXCL), 0);
	assert_return_code(rename(at("env.new"), at("env")), errno);
	assert_string_equal(fake->written, "R=1\n");
	struct stat st;
	expect_errno(ENOENT, stat(at("env.new"), &st));
	assert_int_not_equal(ino_of("env"), before);
	assert_int_equal(fake->unlinked, 0);
	fake->ready = true;
	expect_text("env", "R=1\n");
	/* other files have no such place */
	assert_int_equal(put("x", "x", O_CREAT), 0);
	expect_errno(EACCES, rename(at("x"), at("ports")));
	expect_errno(EACCES, rename(at("x"), at("status.json")));
	expect_errno(EEXIST, renameat2(AT_FDCWD, at("x"), AT_FDCWD, at("env"), RENAME_NOREPLACE));
	expect_errno(EINVAL, renameat2(AT_FDCWD, at("x"), AT_FDCWD, at("env"), RENAME_EXCHANGE));
	fake->demand_errno = ENOSPC;
	expect_errno(ENOSPC, rename(at("x"), at("env")));
	assert_return_code(stat(at("x"), &st), errno); /* nothing is lost */
}

static void deleting_and_renaming_over_it_replaces(void **state)
{
	assert_int_equal(put("env.new", "R=1\n", O_CREAT), 0);
	assert_return_code(unlink(at("env")), errno);
	assert_return_code(rename(at("env.new"), at("env")), errno);
	assert_int_equal(fake->replaced, 1);
	assert_string_equal(fake->written, "R=1\n");
}

static bool have(const char *program)
{
	char command[128];
	snprintf(command, sizeof command, "command -v %s >/dev/null", program);
	return system(command) == 0;
}

static void editors_edit(void **state)
{
	char command[2048];
	fake->ready = true;
	strcpy(fake->env, "A=1\n");
	snprintf(command, sizeof command, "cd %s && sed -i s/A=1/A=2/ env", m.dir);
	assert_int_equal(system(command), 0);
	assert_string_equal(fake->written, "A=2\n");
	snprintf(command, sizeof command, "cd %s && cp /dev/null x && echo B=1 > x && cp x env && mv x env", m.dir);
	assert_int_equal(system(command), 0);
	assert_string_equal(fake->written, "B=1\n");
	snprintf(command, sizeof command, "cd %s && echo C=3 | tee -a env >/dev/null", m.dir);
	assert_int_equal(system(command), 0);
	assert_string_equal(fake->written, "B=1\nC=3\n");
	snprintf(command, sizeof command, "cd %s && printf 'D=4\\n' | dd of=env status=none", m.dir);
	assert_int_equal(system(command), 0);
	assert_string_equal(fake->written, "D=4\n");
	if (!have("vim"))
		return;
	/* as the overlay shows it: a link into this directory */
	char link[128];
	snprintf(link, sizeof link, "%s.link", m.dir);
	assert_return_code(symlink(at("env"), link), errno);
	snprintf(command, sizeof command, "vim -u NONE -N -es +'s/D=4/D=5/' +wq %s </dev/null >/dev/null 2>&1", link);
	int r = system(command);
	unlink(link);
	assert_int_equal(r, 0);
	assert_string_equal(fake->written, "D=5\n");
	DIR *dir = opendir(m.dir);
	for (struct dirent *e; (e = readdir(dir));)
		assert_null(strstr(e->d_name, "sw"));
	closedir(dir);
}

/* ---- ctl ---------------------------------------------------------------------------------------------------------- */

static int command(const char *text)
{
	int fd = open(at("ctl"), O_WRONLY | O_TRUNC);
	if (fd < 0)
		return errno;
	int err = write(fd, text, strlen(text)) < 0 ? errno : 0;
	close(fd);
	return err;
}

static void one_write_is_one_command(void **state)
{
	fake->ready = true;
	assert_int_equal(command("restart db\n"), 0);
	assert_string_equal(fake->command, "restart db");
	assert_int_equal(command("down"), 0);
	assert_string_equal(fake->command, "down");
	assert_int_equal(fake->commands, 2);
	assert_int_equal(command("up\ndown\n"), EINVAL);
	assert_int_equal(command("\n"), EINVAL);
	char *line = calloc(1, 6000);
	memset(line, 'x', 5000);
	assert_int_equal(command(line), EINVAL);
	free(line);
	assert_int_equal(fake->commands, 2);
	fake->demand_errno = ETIMEDOUT;
	assert_int_equal(command("up\n"), ETIMEDOUT);
	char shell[256];
	fake->demand_errno = 0;
	snprintf(shell, sizeof shell, "echo up > %s/ctl && echo reload >> %s/ctl", m.dir, m.dir);
	assert_int_equal(system(shell), 0);
	assert_string_equal(fake->command, "reload");
}

static pid_t commander(int i, const char *text)
{
	m.outcome[i].done = 0;
	pid_t pid = client();
	if (pid == 0) {
		signal(SIGINT, SIG_DFL);
		m.outcome[i].err = command(text);
		m.outcome[i].done = 1;
		_exit(0);
	}
	return pid;
}

/* The kernel locks an inode while it is written to. */
static void a_command_that_lasts_holds_nobody_up(void **state)
{
	pid_t first = commander(0, "up\n");
	eventually(fake->waiting == 1);
	pid_t second = commander(1, "down\n");
	eventually(fake->waiting == 2);
	pid_t reading = reader(2, at("ctl"), O_RDONLY, NULL);
	assert_true(within(&m.outcome[2].done, 1000));
	join(reading);
	expect_errno(EPERM, unlink(at("ctl")));
	assert_false(m.outcome[0].done || m.outcome[1].done);
	fake->finish = true;
	join(first);
	join(second);
	assert_int_equal(m.outcome[0].err + m.outcome[1].err, 0);
}

static void a_command_can_be_left_alone(void **state)
{
	pid_t pid = commander(0, "up\n");
	eventually(fake->waiting == 1);
	kill(pid, SIGINT);
	int status;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(fake->waiting, 1); /* it goes on */
	fake->finish = true;
	eventually(fake->waiting == 0);
	expect_text("ctl", "up     start\ndown   stop\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(text_is_applied_at_close),
		T(appending_adds_to_what_is_there),
		T(the_shell_appends_and_replaces),
		T(two_who_append_at_once_both_stand),
		T(truncation_counts_at_the_last_close),
		T(writing_in_place_keeps_the_rest),
		T(a_writer_reads_what_it_wrote),
		T(truncate_by_path_is_applied_at_once),
		T(opening_to_write_and_closing_changes_nothing),
		T(a_failure_to_keep_it_is_the_errno_of_close),
		T(too_much_is_too_much),
		T(the_rest_cannot_be_written),
		T(modes_owners_and_times_are_taken),
		T(a_scratch_file_is_a_file),
		T(scratch_files_are_bounded),
		T(what_is_renamed_over_env_is_its_text),
		T(deleting_and_renaming_over_it_replaces),
		T(editors_edit),
		T(one_write_is_one_command),
		T(a_command_that_lasts_holds_nobody_up),
		T(a_command_can_be_left_alone),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
