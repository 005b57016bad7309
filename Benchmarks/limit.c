// The physical limit of a restore: creates a tree from memory with the smallest set of system calls, and does nothing else.
//
//     limit MANIFEST DATA DIRECTORY THREADS
//
// MANIFEST holds one record per entry, each of seven fields that end with a NUL: kind (d, f, l or h), mode (octal), modification time
// (whole seconds), offset and size of the content in DATA, path below DIRECTORY, target of a link. Directories come first and parents
// before children; the files of one directory follow each other; symbolic links (l) and hard links (h) come last. amorcebench/limit.py
// writes it. DIRECTORY must exist and be empty. Owners are left to be whoever runs this.
//
// Threads take whole directories, largest first, since two threads in one directory wait for each other's lock.

#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct entry {
    char kind;
    mode_t mode;
    time_t modified;
    size_t offset;
    size_t size;
    const char *path;
    const char *target;
};

// The files of one directory: entries[first] up to entries[end].
struct group {
    size_t first;
    size_t end;
    size_t bytes;
};

static struct entry *entries;
static size_t entry_count;
static struct group *groups;
static size_t group_count;
static atomic_size_t next_group;
static const char *data;
static int root;

static const char *map(const char *path, size_t *size) {
    int file = open(path, O_RDONLY | O_CLOEXEC);
    struct stat status;
    if (file < 0 || fstat(file, &status) != 0) err(1, "%s", path);
    *size = (size_t)status.st_size;
    if (*size == 0) return "";
    const char *bytes = mmap(NULL, *size, PROT_READ, MAP_PRIVATE, file, 0);
    if (bytes == MAP_FAILED) err(1, "%s", path);
    close(file);
    return bytes;
}

static const char *field(const char **cursor) {
    const char *start = *cursor;
    *cursor += strlen(start) + 1;
    return start;
}

static void parse(const char *manifest, size_t size) {
    size_t capacity = 0;
    for (const char *cursor = manifest; cursor < manifest + size;) {
        if (entry_count == capacity) {
            capacity = capacity ? 2 * capacity : 1 << 16;
            entries = realloc(entries, capacity * sizeof *entries);
            if (!entries) err(1, "entries");
        }
        struct entry *entry = &entries[entry_count++];
        entry->kind = *field(&cursor);
        entry->mode = (mode_t)strtoul(field(&cursor), NULL, 8);
        entry->modified = (time_t)strtoll(field(&cursor), NULL, 10);
        entry->offset = strtoull(field(&cursor), NULL, 10);
        entry->size = strtoull(field(&cursor), NULL, 10);
        entry->path = field(&cursor);
        entry->target = field(&cursor);
    }
}

// How much of a path is its directory; 0 for an entry of the root.
static size_t parent_length(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? (size_t)(slash - path) : 0;
}

static int larger_first(const void *left, const void *right) {
    size_t a = ((const struct group *)left)->bytes, b = ((const struct group *)right)->bytes;
    return (a < b) - (a > b);
}

static void group_files(void) {
    groups = calloc(entry_count + 1, sizeof *groups);
    if (!groups) err(1, "groups");
    const char *previous = NULL;
    for (size_t i = 0; i < entry_count; i++) {
        if (entries[i].kind != 'f') continue;
        size_t length = parent_length(entries[i].path);
        if (!previous || parent_length(previous) != length || memcmp(previous, entries[i].path, length) != 0)
            groups[group_count++].first = i;
        groups[group_count - 1].end = i + 1;
        groups[group_count - 1].bytes += entries[i].size;
        previous = entries[i].path;
    }
    qsort(groups, group_count, sizeof *groups, larger_first);
}

static int open_parent(const char *path) {
    size_t length = parent_length(path);
    if (length == 0) return dup(root);
    char *parent = strndup(path, length);
    int directory = parent ? openat(root, parent, O_PATH | O_DIRECTORY | O_CLOEXEC) : -1;
    if (directory < 0) err(1, "%s", path);
    free(parent);
    return directory;
}

static void create_file(int directory, const struct entry *entry) {
    const char *slash = strrchr(entry->path, '/');
    int file = openat(directory, slash ? slash + 1 : entry->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, entry->mode);
    if (file < 0) err(1, "%s", entry->path);
    for (size_t written = 0; written < entry->size;) {
        ssize_t count = write(file, data + entry->offset + written, entry->size - written);
        if (count < 0) err(1, "%s", entry->path);
        written += (size_t)count;
    }
    const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = entry->modified}};
    if (futimens(file, times) != 0 || close(file) != 0) err(1, "%s", entry->path);
}

static void *create_files(void *unused) {
    for (size_t i; (i = atomic_fetch_add(&next_group, 1)) < group_count;) {
        int directory = open_parent(entries[groups[i].first].path);
        for (size_t j = groups[i].first; j < groups[i].end; j++) create_file(directory, &entries[j]);
        close(directory);
    }
    return unused;
}

static void set_time(const struct entry *entry) {
    const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = entry->modified}};
    if (utimensat(root, entry->path, times, AT_SYMLINK_NOFOLLOW) != 0) err(1, "%s", entry->path);
}

int main(int count, char **arguments) {
    if (count != 5) errx(64, "usage: limit MANIFEST DATA DIRECTORY THREADS");
    size_t size;
    const char *manifest = map(arguments[1], &size);
    parse(manifest, size);
    data = map(arguments[2], &size);
    group_files();
    root = open(arguments[3], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (root < 0) err(1, "%s", arguments[3]);
    umask(0);

    // The root itself is the record with the path "." and exists already.
    for (size_t i = 0; i < entry_count && entries[i].kind == 'd'; i++)
        if (mkdirat(root, entries[i].path, 0700) != 0 && errno != EEXIST) err(1, "%s", entries[i].path);

    long threads = strtol(arguments[4], NULL, 10);
    if (threads < 1 || threads > 64) errx(64, "THREADS is from 1 to 64");
    pthread_t workers[64];
    for (long i = 0; i < threads; i++)
        if ((errno = pthread_create(&workers[i], NULL, create_files, NULL)) != 0) err(1, "pthread_create");
    for (long i = 0; i < threads; i++) pthread_join(workers[i], NULL);

    for (size_t i = 0; i < entry_count; i++) {
        if (entries[i].kind == 'l') {
            if (symlinkat(entries[i].target, root, entries[i].path) != 0) err(1, "%s", entries[i].path);
            set_time(&entries[i]);
        } else if (entries[i].kind == 'h') {
            if (linkat(root, entries[i].target, root, entries[i].path, 0) != 0) err(1, "%s", entries[i].path);
        }
    }
    // Last, and children before parents: whatever is created in a directory changes its time.
    for (size_t i = entry_count; i-- > 0;) {
        if (entries[i].kind != 'd') continue;
        if (fchmodat(root, entries[i].path, entries[i].mode, 0) != 0) err(1, "%s", entries[i].path);
        set_time(&entries[i]);
    }
    return 0;
}
