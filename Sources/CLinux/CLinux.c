#define _GNU_SOURCE
#include "CLinux.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/openat2.h>
#include <malloc.h>
#include <net/if.h>
#include <pthread.h>
#include <sched.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

const uint64_t amorce_resolve_beneath = RESOLVE_BENEATH;
const uint64_t amorce_resolve_no_symlinks = RESOLVE_NO_SYMLINKS;
const uint64_t amorce_resolve_no_magiclinks = RESOLVE_NO_MAGICLINKS;

int amorce_openat2(int directory, const char *path, uint64_t flags, uint64_t mode, uint64_t resolve) {
    struct open_how how = {.flags = flags, .mode = mode, .resolve = resolve};
    return (int)syscall(SYS_openat2, directory, path, &how, sizeof how);
}

const int amorce_path_only = O_PATH;

int amorce_has_default_acl(int directory) {
    return fgetxattr(directory, "system.posix_acl_default", NULL, 0) > 0;
}

int amorce_openat(int directory, const char *path, int flags, mode_t mode) {
    return openat(directory, path, flags, mode);
}

int amorce_clone_file(int destination, int source) { return ioctl(destination, FICLONE, source); }

ssize_t amorce_copy_range(int destination, int source, size_t size) {
    ssize_t copied = copy_file_range(source, NULL, destination, NULL, size, 0);
    if (copied >= 0 || (errno != EXDEV && errno != EINVAL && errno != EOPNOTSUPP && errno != ENOSYS)) return copied;
    char buffer[65536];
    ssize_t count = read(source, buffer, size < sizeof buffer ? size : sizeof buffer);
    for (ssize_t done = 0; done < count;) {
        ssize_t written = write(destination, buffer + done, count - done);
        if (written < 0) return -1;
        done += written;
    }
    return count;
}

ssize_t amorce_copy_range_at(
    int destination, int64_t destination_offset, int source, int64_t source_offset, size_t size) {
    off64_t from = source_offset, to = destination_offset;
    return copy_file_range(source, &from, destination, &to, size, 0);
}

int amorce_rename_new(int directory, const char *from, const char *to) {
    return renameat2(directory, from, directory, to, RENAME_NOREPLACE);
}

int amorce_pipe(int ends[2]) { return pipe2(ends, O_CLOEXEC); }

int amorce_spawn_in_directory(void *actions, const char *path) {
    return posix_spawn_file_actions_addchdir_np(actions, path);
}

int amorce_terminal_columns(int descriptor) {
    struct winsize size;
    return ioctl(descriptor, TIOCGWINSZ, &size) == 0 ? size.ws_col : 0;
}

void amorce_error_text(int code, char *buffer, size_t size) {
    char scratch[128];
    snprintf(buffer, size, "%s", strerror_r(code, scratch, sizeof scratch));
}

void amorce_wipe(void *memory, size_t size) { explicit_bzero(memory, size); }

void amorce_name_thread(const char *name) { pthread_setname_np(pthread_self(), name); }

int amorce_exited(int status) { return WIFEXITED(status); }
int amorce_exit_status(int status) { return WEXITSTATUS(status); }
int amorce_termination_signal(int status) { return WTERMSIG(status); }

int amorce_random(void *buffer, size_t size) {
    return getrandom(buffer, size, 0) == (ssize_t)size ? 0 : -1;
}

int amorce_enter_private_network(void) {
    if (unshare(CLONE_NEWNET) != 0) return -1;
    int control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (control < 0) return -1;
    struct ifreq loopback = {.ifr_name = "lo"};
    int result = ioctl(control, SIOCGIFFLAGS, &loopback);
    loopback.ifr_flags |= IFF_UP;
    if (result == 0) result = ioctl(control, SIOCSIFFLAGS, &loopback);
    int code = errno;
    close(control);
    errno = code;
    return result;
}

int amorce_syncfs(int descriptor) { return syncfs(descriptor); }

int amorce_own_umask(void) {
    if (unshare(CLONE_FS) != 0) return -1;
    umask(0);
    return 0;
}

int amorce_processors(void) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
    return (int)sysconf(_SC_NPROCESSORS_ONLN);
}

void amorce_return_large_buffers(size_t smallest) { mallopt(M_MMAP_THRESHOLD, (int)smallest); }
