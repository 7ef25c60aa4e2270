/*
 * The first process of the virtual machine in which `cargo xtask test rootfs --kernel` runs tests.
 * It loads the modules of the initramfs, makes a root of the host's files (virtiofs, read-only)
 * with a disk of its own above them, runs a script there and ends the machine with the script's
 * exit code.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

/* The port of QEMU's isa-debug-exit, as machine.rs places it. */
#define EXIT_PORT 0xf4
/* What the machine ends with if the script was not run. */
#define NOT_RUN 99

/* Directories of which the host's content is not shown. */
static const char *const HIDDEN[] = {
	"/disk/upper/dev", "/disk/upper/proc", "/disk/upper/run", "/disk/upper/sys", "/disk/upper/tmp", NULL
};

static void finish(int code)
{
	fflush(stdout);
	sync();
	if (ioperm(EXIT_PORT, 1, 1) == 0)
		outb(code, EXIT_PORT);
	reboot(RB_POWER_OFF);
}

static void check(int result, const char *what)
{
	if (result != -1)
		return;
	printf("init: %s: %s\n", what, strerror(errno));
	finish(NOT_RUN);
}

static void mounted(const char *type, const char *source, const char *target, unsigned long flags, const char *options)
{
	mkdir(target, 0755);
	check(mount(source, target, type, flags, options), target);
}

/* Their names sort in the order in which they have to be loaded. */
static void load_modules(void)
{
	struct dirent **names;
	int count = scandir("/modules", &names, NULL, alphasort);

	check(count, "/modules");
	check(chdir("/modules"), "/modules");
	for (int at = 0; at < count; at++) {
		const char *name = names[at]->d_name;

		if (name[0] == '.')
			continue;
		int file = open(name, O_RDONLY | O_CLOEXEC);

		check(file, name);
		if (syscall(SYS_finit_module, file, "", 0) == -1 && errno != EEXIST)
			check(-1, name);
		close(file);
	}
}

static void make_root(void)
{
	mounted("virtiofs", "host", "/host", MS_RDONLY, NULL);
	mounted("ext4", "/dev/vda", "/disk", 0, NULL);
	mkdir("/disk/upper", 0755);
	mkdir("/disk/work", 0755);
	mkdir("/disk/tmp", 0755);
	check(chmod("/disk/tmp", 01777), "/disk/tmp");
	for (int at = 0; HIDDEN[at] != NULL; at++) {
		mkdir(HIDDEN[at], 0755);
		check(setxattr(HIDDEN[at], "trusted.overlay.opaque", "y", 1, 0), HIDDEN[at]);
	}
	mounted("overlay", "root", "/root", 0, "lowerdir=/host,upperdir=/disk/upper,workdir=/disk/work");
	check(chdir("/root"), "/root");
	mounted("proc", "proc", "proc", 0, NULL);
	mounted("sysfs", "sysfs", "sys", 0, NULL);
	mounted("devtmpfs", "devtmpfs", "dev", 0, NULL);
	mounted("devpts", "devpts", "dev/pts", 0, NULL);
	mounted("tmpfs", "tmpfs", "dev/shm", 0, NULL);
	mounted("tmpfs", "tmpfs", "run", 0, "mode=0755");
	/* Nothing that is kept may lie on an overlay. */
	mounted(NULL, "/disk/tmp", "tmp", MS_BIND, NULL);
	mounted(NULL, "/disk/tmp", "var/tmp", MS_BIND, NULL);
	/*
	 * As on a node only one mount stays on the root of the initramfs: listmount(2) of 6.12 shows what
	 * is below the first one alone. The overlay has mounts of its layers for itself.
	 */
	check(umount2("/host", MNT_DETACH), "/host");
	check(umount2("/disk", MNT_DETACH), "/disk");
	check(umount2("/dev", MNT_DETACH), "/dev");
	/* pivot_root(2) refuses the initramfs as the old root. */
	check(mount(".", "/", NULL, MS_MOVE, NULL), "the root");
	check(chroot("."), "the root");
	check(chdir("/"), "the root");
}

int main(void)
{
	char *script = getenv("script");
	char *arguments[] = { "sh", script, NULL };
	char *environment[] = { "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", NULL };
	int status;

	mounted("devtmpfs", "devtmpfs", "/dev", 0, NULL);
	load_modules();
	make_root();
	pid_t child = fork();

	check(child, "fork");
	if (child == 0) {
		setsid();
		execve("/bin/sh", arguments, environment);
		check(-1, "/bin/sh");
	}
	/* Orphans are this process's children too. */
	for (;;) {
		pid_t ended = wait(&status);

		if (ended == child)
			finish(WIFEXITED(status) ? WEXITSTATUS(status) : NOT_RUN);
		if (ended == -1)
			finish(NOT_RUN);
	}
}
