/* A disk that can lose power, fill up, fail and be slow, for one process and one flat folder; and an
 * end of that process at a named point of what it does.
 *
 * RULE: stands between a process and its kernel (LD_PRELOAD) and only for files right below
 * JEPSEN_DISK_ROOT; everything else passes untouched. It decides nothing: what goes wrong is told by
 * the control file (see disk.py, which also rolls back).
 *
 * Losing power. A killed process loses nothing, as the kernel has what was written. So before bytes
 * change, what was there goes to JEPSEN_DISK_SIDE, one undo file per inode; a sync that succeeded
 * throws it away. Before a name changes, a line goes to `names.undo`, and a hard link keeps the file
 * that would be gone; a sync of the folder throws these away. After a kill, disk.py puts back what no
 * sync has promised. Undo comes before the change, and is one append: a kill between the two is
 * harmless, and so are threads and forked children, as there is no lock and no memory in common.
 *
 * Ending at a point. The n-th write, sync, new name, rename, removal, cut or sending is the last thing
 * that the process does, or the first that it does not: SIGKILL to its whole group, children too.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define FDS 65536
#define NAME_MAX_BYTES 255

/* The control file: disk.py writes the first half, we the second. Little-endian words. */
struct control {
    _Atomic uint32_t write_errno;   /* what a write answers, 0 for nothing wrong */
    _Atomic uint32_t write_after;   /* so many writes succeed before */
    _Atomic uint32_t sync_errno;    /* what a sync answers */
    _Atomic uint32_t sync_after;    /* so many syncs succeed before */
    _Atomic uint32_t sync_delay_ms; /* a sync takes so much longer */
    _Atomic uint32_t half_write;    /* the first write that fails takes half of its bytes */
    _Atomic uint32_t name_errno;    /* what a new name, a rename or a removal answers */
    _Atomic uint32_t is_full;       /* statvfs tells that no byte is free */
    _Atomic uint32_t writes, syncs, names, faults; /* how many there were */
    _Atomic uint32_t end_at;    /* operation, moment << 8, first letter of the file's name << 16; 0 for none */
    _Atomic uint32_t end_after; /* so many of these come before */
    uint32_t spare[2];
};

enum operation { WRITE = 1, SYNC, CREATE, RENAME, UNLINK, TRUNCATE, SEND };
enum moment { BEFORE, HALF, AFTER };

struct record {
    uint64_t offset, old_bytes, old_size;
};

static char root[4096], side[4096];
static size_t root_length;
static struct control *control;
static unsigned char ours[FDS]; /* first letter of the name; '/' for the root; 0 for any other */
static pid_t began_as;
static _Atomic unsigned kept;

static int (*real_open)(const char *, int, ...);
static int (*real_openat)(int, const char *, int, ...);
static int (*real_close)(int);
static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static int (*real_ftruncate)(int, off_t);
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);
static int (*real_rename)(const char *, const char *);
static int (*real_unlink)(const char *);
static int (*real_statvfs)(const char *, struct statvfs *);
static ssize_t (*real_writev)(int, const struct iovec *, int);
static ssize_t (*real_send)(int, const void *, size_t, int);
static ssize_t (*real_sendmsg)(int, const struct msghdr *, int);

static void *next(const char *name)
{
    return dlsym(RTLD_NEXT, name);
}

__attribute__((constructor)) static void begin(void)
{
    real_open = next("open");
    real_openat = next("openat");
    real_close = next("close");
    real_write = next("write");
    real_pwrite = next("pwrite");
    real_ftruncate = next("ftruncate");
    real_fsync = next("fsync");
    real_fdatasync = next("fdatasync");
    real_rename = next("rename");
    real_unlink = next("unlink");
    real_statvfs = next("statvfs");
    real_writev = next("writev");
    real_send = next("send");
    real_sendmsg = next("sendmsg");
    const char *given_root = getenv("JEPSEN_DISK_ROOT"), *given_side = getenv("JEPSEN_DISK_SIDE");
    if (!given_root || !given_side || strlen(given_root) > 3000 || strlen(given_side) > 3000)
        return;
    strcpy(side, given_side);
    char path[4096];
    snprintf(path, sizeof path, "%s/control", side);
    int fd = syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return;
    void *at = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    syscall(SYS_close, fd);
    if (at == MAP_FAILED)
        return;
    control = at;
    began_as = getpid();
    strcpy(root, given_root);
    root_length = strlen(root);
}

/* The name right below the root, or NULL. The lock file is a word between processes, not data. */
static const char *ours_by_name(const char *path)
{
    if (!root_length || !path || strncmp(path, root, root_length) || path[root_length] != '/')
        return NULL;
    const char *name = path + root_length + 1;
    if (!*name || strchr(name, '/') || strlen(name) > NAME_MAX_BYTES || !strcmp(name, "lock"))
        return NULL;
    return name;
}

static int is_root(const char *path)
{
    return root_length && path && !strncmp(path, root, root_length) &&
           (!path[root_length] || !strcmp(path + root_length, "/"));
}

/* Whether a failure is due: the countdown is common to all threads. */
static int is_due(_Atomic uint32_t *error, _Atomic uint32_t *after)
{
    if (!atomic_load(error))
        return 0;
    uint32_t left = atomic_load(after);
    while (left)
        if (atomic_compare_exchange_weak(after, &left, left - 1))
            return 0;
    atomic_fetch_add(&control->faults, 1);
    return 1;
}

/* Whether the end is here. It comes once: who is started again goes on. */
static int is_last(enum operation operation, enum moment moment, unsigned char letter)
{
    uint32_t at = atomic_load(&control->end_at), wanted = at >> 16;
    if ((at & 0xff) != operation || (at >> 8 & 0xff) != moment || (wanted && wanted != letter))
        return 0;
    uint32_t left = atomic_load(&control->end_after);
    while (left)
        if (atomic_compare_exchange_weak(&control->end_after, &left, left - 1))
            return 0;
    return atomic_compare_exchange_strong(&control->end_at, &at, 0);
}

static void end(void)
{
    atomic_fetch_add(&control->faults, 1);
    /* A node leads a group of its own. */
    syscall(SYS_kill, getpgrp() == began_as ? -began_as : getpid(), SIGKILL);
}

static void end_if_last(enum operation operation, enum moment moment, unsigned char letter)
{
    if (is_last(operation, moment, letter))
        end();
}

static void append(const char *file, const struct iovec *parts, int count)
{
    int fd = syscall(SYS_openat, AT_FDCWD, file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0)
        abort(); /* Without undo the rest of the run would mean nothing. */
    ssize_t size = 0;
    for (int at = 0; at < count; at++)
        size += parts[at].iov_len;
    if (syscall(SYS_writev, fd, parts, count) != size)
        abort();
    syscall(SYS_close, fd);
}

static int is_file(int fd, struct stat *found)
{
    return fd >= 0 && fd < FDS && ours[fd] && !fstat(fd, found) && S_ISREG(found->st_mode);
}

static void undo_file(char *path, size_t size, const struct stat *found, const char *end)
{
    snprintf(path, size, "%s/%llu.undo%s", side, (unsigned long long)found->st_ino, end);
}

/* Keep what is there now: the bytes from offset to end as far as they exist, and the size. */
static void keep_bytes(int fd, const struct stat *found, uint64_t offset, uint64_t end)
{
    uint64_t size = found->st_size, last = end < size ? end : size;
    struct record record = {offset, last > offset ? last - offset : 0, size};
    char *bytes = NULL;
    if (record.old_bytes) {
        bytes = malloc(record.old_bytes);
        uint64_t had = 0;
        while (had < record.old_bytes) {
            ssize_t got = syscall(SYS_pread64, fd, bytes + had, record.old_bytes - had, offset + had);
            if (got <= 0)
                abort(); /* Opened without leave to read: say so loudly. */
            had += got;
        }
    }
    char path[4200];
    undo_file(path, sizeof path, found, "");
    struct iovec parts[2] = {{&record, sizeof record}, {bytes, record.old_bytes}};
    append(path, parts, record.old_bytes ? 2 : 1);
    free(bytes);
}

static void keep_name(const char *kind, const char *first, const char *second, const char *link)
{
    char line[1200], path[4200];
    int size = snprintf(line, sizeof line, "%s\t%s\t%s\t%s\n", kind, first, second, link);
    snprintf(path, sizeof path, "%s/names.undo", side);
    struct iovec part = {line, size};
    append(path, &part, 1);
}

/* A hard link to a file that is about to lose its name; an empty text where there is none. */
static void keep_link(const char *path, char *name, size_t size)
{
    char at[4200];
    snprintf(name, size, "keep-%d-%u", (int)getpid(), atomic_fetch_add(&kept, 1));
    snprintf(at, sizeof at, "%s/%s", side, name);
    if (syscall(SYS_linkat, AT_FDCWD, path, AT_FDCWD, at, 0))
        *name = 0;
}

static int refuse_name(void)
{
    atomic_fetch_add(&control->names, 1);
    uint32_t error = atomic_load(&control->name_errno);
    if (!error)
        return 0;
    atomic_fetch_add(&control->faults, 1);
    errno = error;
    return 1;
}

static int opened(const char *path, int flags, mode_t mode)
{
    const char *name = ours_by_name(path);
    int is_new = 0;
    if (name && (flags & O_CREAT) && access(path, F_OK)) {
        if (refuse_name())
            return -1;
        is_new = 1;
        end_if_last(CREATE, BEFORE, *name);
        keep_name("C", name, "", "");
    }
    struct stat before;
    if (name && (flags & O_TRUNC) && !stat(path, &before) && before.st_size) {
        int fd = syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC);
        if (fd >= 0) {
            keep_bytes(fd, &before, 0, before.st_size);
            syscall(SYS_close, fd);
        }
    }
    int fd = real_open(path, flags, mode);
    if (fd >= 0 && fd < FDS) {
        ours[fd] = name ? *name : is_root(path) ? '/' : 0;
        struct stat found;
        if (is_new && !fstat(fd, &found)) {
            /* Its inode may have been another file's. */
            char undo[4200];
            undo_file(undo, sizeof undo, &found, "");
            syscall(SYS_unlinkat, AT_FDCWD, undo, 0);
            end_if_last(CREATE, AFTER, *name);
        }
    }
    return fd;
}

static mode_t mode_of(int flags, va_list given)
{
    int makes = (flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE;
    return makes ? va_arg(given, mode_t) : 0;
}

int open(const char *path, int flags, ...)
{
    va_list given;
    va_start(given, flags);
    mode_t mode = mode_of(flags, given);
    va_end(given);
    return opened(path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
    va_list given;
    va_start(given, flags);
    mode_t mode = mode_of(flags, given);
    va_end(given);
    return opened(path, flags | O_LARGEFILE, mode);
}

static int opened_at(int folder, const char *path, int flags, mode_t mode)
{
    if (path && path[0] == '/')
        return opened(path, flags, mode);
    int fd = real_openat(folder, path, flags, mode);
    if (fd >= 0 && fd < FDS)
        ours[fd] = 0;
    return fd;
}

int openat(int folder, const char *path, int flags, ...)
{
    va_list given;
    va_start(given, flags);
    mode_t mode = mode_of(flags, given);
    va_end(given);
    return opened_at(folder, path, flags, mode);
}

int openat64(int folder, const char *path, int flags, ...)
{
    va_list given;
    va_start(given, flags);
    mode_t mode = mode_of(flags, given);
    va_end(given);
    return opened_at(folder, path, flags | O_LARGEFILE, mode);
}

int close(int fd)
{
    if (fd >= 0 && fd < FDS)
        ours[fd] = 0;
    return real_close(fd);
}

static ssize_t written(int fd, const struct stat *found, const void *data, size_t size, off_t offset)
{
    atomic_fetch_add(&control->writes, 1);
    end_if_last(WRITE, BEFORE, ours[fd]);
    keep_bytes(fd, found, offset, offset + size);
    if (is_last(WRITE, HALF, ours[fd])) {
        real_pwrite(fd, data, size / 2, offset);
        end();
    }
    if (is_due(&control->write_errno, &control->write_after)) {
        if (size > 1 && atomic_exchange(&control->half_write, 0))
            return real_pwrite(fd, data, size / 2, offset);
        errno = atomic_load(&control->write_errno);
        return -1;
    }
    ssize_t done = real_pwrite(fd, data, size, offset);
    end_if_last(WRITE, AFTER, ours[fd]);
    return done;
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset)
{
    struct stat found;
    if (!is_file(fd, &found))
        return real_pwrite(fd, data, size, offset);
    return written(fd, &found, data, size, offset);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off_t offset)
{
    return pwrite(fd, data, size, offset);
}

static int is_sending(int fd)
{
    struct stat found;
    return control && (atomic_load(&control->end_at) & 0xff) == SEND && !fstat(fd, &found) &&
           S_ISSOCK(found.st_mode);
}

/* To peers and to clients alike; half of what is sent is the first half of its first part. */
static void begin_send(int fd, const struct iovec *parts, size_t count)
{
    if (!is_sending(fd))
        return;
    end_if_last(SEND, BEFORE, 0);
    if (is_last(SEND, HALF, 0)) {
        if (count)
            real_send(fd, parts->iov_base, parts->iov_len / 2, MSG_NOSIGNAL);
        end();
    }
}

static ssize_t end_send(int fd, ssize_t sent)
{
    int error = errno;
    if (sent > 0 && is_sending(fd))
        end_if_last(SEND, AFTER, 0);
    errno = error;
    return sent;
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    begin_send(fd, parts, count);
    return end_send(fd, real_writev(fd, parts, count));
}

ssize_t send(int fd, const void *data, size_t size, int flags)
{
    struct iovec part = {(void *)data, size};
    begin_send(fd, &part, 1);
    return end_send(fd, real_send(fd, data, size, flags));
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    begin_send(fd, message->msg_iov, message->msg_iovlen);
    return end_send(fd, real_sendmsg(fd, message, flags));
}

ssize_t write(int fd, const void *data, size_t size)
{
    struct stat found;
    if (!is_file(fd, &found)) {
        struct iovec part = {(void *)data, size};
        begin_send(fd, &part, 1);
        return end_send(fd, real_write(fd, data, size));
    }
    off_t offset =
        fcntl(fd, F_GETFL) & O_APPEND ? found.st_size : (off_t)syscall(SYS_lseek, fd, 0, SEEK_CUR);
    ssize_t done = written(fd, &found, data, size, offset);
    if (done > 0)
        syscall(SYS_lseek, fd, offset + done, SEEK_SET);
    return done;
}

int ftruncate(int fd, off_t size)
{
    struct stat found;
    if (!is_file(fd, &found))
        return real_ftruncate(fd, size);
    end_if_last(TRUNCATE, BEFORE, ours[fd]);
    keep_bytes(fd, &found, size, found.st_size > size ? found.st_size : size);
    int done = real_ftruncate(fd, size);
    end_if_last(TRUNCATE, AFTER, ours[fd]);
    return done;
}

int ftruncate64(int fd, off_t size)
{
    return ftruncate(fd, size);
}

/* What was promised by a sync of the folder: the names as they are now. */
static void forget_names(const char *list)
{
    FILE *lines = fopen(list, "re");
    if (!lines)
        return;
    char line[1200], path[4200];
    while (fgets(line, sizeof line, lines)) {
        line[strcspn(line, "\n")] = 0;
        char *link = strrchr(line, '\t');
        if (!link || !link[1])
            continue;
        struct stat found;
        snprintf(path, sizeof path, "%s/%s", side, link + 1);
        if (!stat(path, &found) && found.st_nlink == 1) {
            char undo[4200];
            undo_file(undo, sizeof undo, &found, "");
            syscall(SYS_unlinkat, AT_FDCWD, undo, 0);
        }
        syscall(SYS_unlinkat, AT_FDCWD, path, 0);
    }
    fclose(lines);
    syscall(SYS_unlinkat, AT_FDCWD, list, 0);
}

static int synced(int fd, int (*real)(int))
{
    struct stat found;
    if (fd < 0 || fd >= FDS || !ours[fd] || fstat(fd, &found))
        return real(fd);
    atomic_fetch_add(&control->syncs, 1);
    uint32_t delay_ms = atomic_load(&control->sync_delay_ms);
    if (delay_ms) {
        struct timespec delay = {delay_ms / 1000, (delay_ms % 1000) * 1000000L};
        syscall(SYS_nanosleep, &delay, NULL);
    }
    if (is_due(&control->sync_errno, &control->sync_after)) {
        errno = atomic_load(&control->sync_errno);
        return -1;
    }
    end_if_last(SYNC, BEFORE, ours[fd]);
    /* What is written from here on is not of this sync. Killed in between, both are put back. */
    char undo[4200], syncing[4200];
    if (S_ISDIR(found.st_mode)) {
        snprintf(undo, sizeof undo, "%s/names.undo", side);
        snprintf(syncing, sizeof syncing, "%s/names.undo.syncing", side);
    } else {
        undo_file(undo, sizeof undo, &found, "");
        undo_file(syncing, sizeof syncing, &found, ".syncing");
    }
    syscall(SYS_renameat, AT_FDCWD, undo, AT_FDCWD, syncing);
    int done = real(fd);
    if (done)
        return done;
    if (S_ISDIR(found.st_mode))
        forget_names(syncing);
    else
        syscall(SYS_unlinkat, AT_FDCWD, syncing, 0);
    end_if_last(SYNC, AFTER, ours[fd]);
    return 0;
}

int fsync(int fd)
{
    return synced(fd, real_fsync);
}

int fdatasync(int fd)
{
    return synced(fd, real_fdatasync);
}

int rename(const char *from, const char *to)
{
    const char *first = ours_by_name(from), *second = ours_by_name(to);
    if (first && second) {
        if (refuse_name())
            return -1;
        char link[64];
        end_if_last(RENAME, BEFORE, *second);
        keep_link(to, link, sizeof link);
        keep_name("R", first, second, link);
    }
    int done = real_rename(from, to);
    if (first && second)
        end_if_last(RENAME, AFTER, *second);
    return done;
}

int unlink(const char *path)
{
    const char *name = ours_by_name(path);
    if (name) {
        if (refuse_name())
            return -1;
        char link[64];
        end_if_last(UNLINK, BEFORE, *name);
        keep_link(path, link, sizeof link);
        keep_name("U", name, "", link);
    }
    int done = real_unlink(path);
    if (name)
        end_if_last(UNLINK, AFTER, *name);
    return done;
}

int statvfs(const char *path, struct statvfs *found)
{
    int done = real_statvfs(path, found);
    if (!done && control && atomic_load(&control->is_full) && (is_root(path) || ours_by_name(path))) {
        found->f_bavail = 0;
        found->f_bfree = 0;
    }
    return done;
}

int statvfs64(const char *path, struct statvfs64 *found)
{
    return statvfs(path, (struct statvfs *)found);
}
