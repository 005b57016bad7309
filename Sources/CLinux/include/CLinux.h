// System calls and macros that Swift's Glibc overlay does not show. Plain declarations: the GNU feature macros that some of
// them need are defined in CLinux.c alone, because headers read under other macros would clash between Swift's modules.
#ifndef AMORCE_CLINUX_H
#define AMORCE_CLINUX_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/// openat2(2), Linux 5.6; glibc 2.36 has no wrapper. `resolve` takes AMORCE_RESOLVE_*.
int amorce_openat2(int directory, const char *path, uint64_t flags, uint64_t mode, uint64_t resolve);
extern const uint64_t amorce_resolve_beneath;
extern const uint64_t amorce_resolve_no_symlinks;
extern const uint64_t amorce_resolve_no_magiclinks;

/// O_PATH: a descriptor that only names a place.
extern const int amorce_path_only;

/// Whether files made in the directory get their mode from a default ACL, in place of the umask; acl(5).
int amorce_has_default_acl(int directory);

/// openat is variadic.
int amorce_openat(int directory, const char *path, int flags, mode_t mode);

/// FICLONE, an ioctl whose number is a macro with a size in it: shares the blocks of `source`. 0, or -1 with errno.
int amorce_clone_file(int destination, int source);

/// copy_file_range(2) from and to the descriptors' own offsets, within the kernel; falls back to read and write where a file
/// system has none.
ssize_t amorce_copy_range(int destination, int source, size_t size);

/// copy_file_range(2) between two places, nothing else: -1 with errno where the file systems cannot.
ssize_t amorce_copy_range_at(
    int destination, int64_t destination_offset, int source, int64_t source_offset, size_t size);

/// renameat2(2) within one directory with RENAME_NOREPLACE: EEXIST where `to` is taken.
int amorce_rename_new(int directory, const char *from, const char *to);

/// pipe2(2) with O_CLOEXEC.
int amorce_pipe(int ends[2]);

/// posix_spawn_file_actions_addchdir_np; `actions` is a posix_spawn_file_actions_t.
int amorce_spawn_in_directory(void *actions, const char *path);

int amorce_terminal_columns(int descriptor);

/// The GNU strerror_r, copied into `buffer`.
void amorce_error_text(int code, char *buffer, size_t size);

/// Overwrites memory in a way that the compiler may not leave out.
void amorce_wipe(void *memory, size_t size);

/// Names the calling thread for ps and gdb; at most 15 bytes.
void amorce_name_thread(const char *name);

/// The wait status macros.
int amorce_exited(int status);
int amorce_exit_status(int status);
int amorce_termination_signal(int status);

/// getrandom(2), whole or -1.
int amorce_random(void *buffer, size_t size);

/// A network of its own for the calling thread and whatever it starts (unshare(2), CLONE_NEWNET), with the loopback interface
/// up (netdevice(7)). 0, or -1 with errno.
int amorce_enter_private_network(void);

/// syncfs(2): everything of the file system that `descriptor` lies on is on disk.
int amorce_syncfs(int descriptor);

// Gives the calling thread a umask of its own (unshare(2), CLONE_FS), and sets it to 0. Nonzero where the kernel does not let it.
int amorce_own_umask(void);

// How many processors this process may run on.
int amorce_processors(void);

// Buffers of this size and more go back to the system when they are freed (mallopt(3), M_MMAP_THRESHOLD).
void amorce_return_large_buffers(size_t smallest);

#endif
