/*
 * The least that a container runtime can take: a cgroup, clone3 with new namespaces into it, the mounts that the bench's
 * config.json asks for, pivot_root, execve, wait, rmdir. No parsing, no limits, no masks, no error texts.
 *
 *     floor ROOTFS CGROUP PROGRAM
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <linux/sched.h>

static void must(long result, const char *what)
{
    if (result < 0) {
        perror(what);
        _exit(126);
    }
}

static void child(const char *root, char *program)
{
    char *const argv[] = {program, NULL}, *const env[] = {NULL};

    must(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), "private");
    must(mount(root, root, NULL, MS_BIND | MS_REC, NULL), "bind");
    must(chdir(root), "chdir");
    must(mount("proc", "proc", "proc", 0, NULL), "proc");
    must(mount("tmpfs", "dev", "tmpfs", MS_NOSUID, "mode=755,size=65536k"), "dev");
    must(mkdir("dev/pts", 0755) | mkdir("dev/shm", 0755) | mkdir("dev/mqueue", 0755), "mkdir");
    must(mount("devpts", "dev/pts", "devpts", MS_NOSUID, "newinstance,ptmxmode=0666,mode=0620"),
         "pts");
    must(mount("shm", "dev/shm", "tmpfs", MS_NOSUID, "mode=1777,size=65536k"), "shm");
    must(mount("mqueue", "dev/mqueue", "mqueue", MS_NOSUID, NULL), "mqueue");
    must(mount("sysfs", "sys", "sysfs", MS_NOSUID | MS_RDONLY, NULL), "sysfs");
    must(syscall(SYS_pivot_root, ".", "."), "pivot_root");
    must(umount2(".", MNT_DETACH), "umount");
    execve(program, argv, env);
    must(-1, program);
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    must(mkdir(argv[2], 0755), argv[2]);
    int group = open(argv[2], O_RDONLY | O_DIRECTORY | O_CLOEXEC), status;
    struct clone_args args = {
        .flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET |
                 CLONE_INTO_CGROUP,
        .exit_signal = SIGCHLD,
        .cgroup = (uint64_t)group,
    };
    long pid = syscall(SYS_clone3, &args, sizeof(args));

    must(pid, "clone3");
    if (pid == 0)
        child(argv[1], argv[3]);
    must(waitpid((pid_t)pid, &status, 0), "wait");
    /* the last process leaves the group a moment after it can be waited for */
    while (rmdir(argv[2]) < 0)
        if (errno != EBUSY)
            must(-1, "rmdir");
    return WIFEXITED(status) ? WEXITSTATUS(status) : 125;
}
