internal import CLinux
internal import Glibc

public enum FileKind: Sendable, Equatable {
    case regular, directory, symlink, other
}

/// What lstat(2) or stat(2) says of one name.
public struct FileStatus: Sendable, Equatable {
    public let kind: FileKind
    /// Permission bits alone (07777).
    public let mode: UInt32
    public let owner: UInt32
    public let group: UInt32
    public let size: Int64
    /// Nanoseconds since 1970.
    public let modified: Int64
    public let inode: UInt64
    public let device: UInt64
    public let links: UInt64

    init(_ raw: stat) {
        switch raw.st_mode & S_IFMT {
        case S_IFREG: kind = .regular
        case S_IFDIR: kind = .directory
        case S_IFLNK: kind = .symlink
        default: kind = .other
        }
        mode = raw.st_mode & 0o7777
        owner = raw.st_uid
        group = raw.st_gid
        size = Int64(raw.st_size)
        modified = raw.st_mtim.nanoseconds
        inode = UInt64(raw.st_ino)
        device = UInt64(raw.st_dev)
        links = UInt64(raw.st_nlink)
    }
}

/// Operations on names. Each throws `HostError` with the call and the path; none follows a symlink in the last component
/// unless its name says so. Paths are absolute.
public enum Files {
    /// Nil where nothing has that name.
    public static func status(_ path: String, followingLinks: Bool = false) throws(HostError) -> FileStatus? {
        var raw = stat()
        let result = followingLinks ? stat(path, &raw) : lstat(path, &raw)
        if result == 0 { return FileStatus(raw) }
        let code = errno
        if code == ENOENT || code == ENOTDIR { return nil }
        throw HostError("stat", path, errno: code)
    }

    public static func exists(_ path: String) -> Bool {
        var raw = stat()
        return lstat(path, &raw) == 0
    }

    /// The target of a symlink, or nil where the name is absent or no symlink.
    public static func linkTarget(_ path: String) -> String? {
        var buffer = [UInt8](repeating: 0, count: 4096)
        let length = buffer.withUnsafeMutableBytes { bytes in
            bytes.baseAddress.map { readlink(path, $0.assumingMemoryBound(to: CChar.self), bytes.count) } ?? -1
        }
        return length > 0 ? String(decoding: buffer.prefix(length), as: UTF8.self) : nil
    }

    /// The path with every symlink followed, or nil where it leads nowhere.
    public static func resolved(_ path: String) -> String? {
        guard let raw = realpath(path, nil) else { return nil }
        defer { free(raw) }
        return String(cString: raw)
    }

    /// Makes the directory and the missing ones above it, with `mode` for those it makes whatever the umask says.
    public static func makeDirectories(_ path: String, mode: UInt32 = 0o755) throws(HostError) {
        if mkdir(path, mode) == 0 {
            if chmod(path, mode) != 0 { throw HostError("chmod", path, errno: errno) }
            return
        }
        let code = errno
        if code == EEXIST {
            guard let status = try status(path, followingLinks: true), status.kind == .directory else {
                throw HostError("mkdir", path, errno: ENOTDIR)
            }
            return
        }
        guard code == ENOENT, let parent = parent(of: path) else { throw HostError("mkdir", path, errno: code) }
        try makeDirectories(parent, mode: mode)
        try makeDirectories(path, mode: mode)
    }

    /// Makes the folders of `relative` below `root`, never leading through a symlink. Throws ENOTDIR where one is in the way.
    public static func makeDirectoriesBeneath(_ root: String, _ relative: String) throws(HostError) {
        var path = root
        for part in relative.split(separator: "/") {
            path += "/" + part
            if let status = try status(path) {
                if status.kind != .directory { throw HostError("mkdir", path, errno: ENOTDIR) }
            } else {
                try makeDirectories(path)
            }
        }
    }

    /// One new directory; an existing name is an error.
    public static func makeNewDirectory(_ path: String, mode: UInt32) throws(HostError) {
        if mkdir(path, mode) != 0 || chmod(path, mode) != 0 { throw HostError("mkdir", path, errno: errno) }
    }

    public static func parent(of path: String) -> String? {
        guard let slash = path.lastIndex(of: "/"), path.count > 1 else { return nil }
        return slash == path.startIndex ? "/" : String(path[..<slash])
    }

    public static func name(of path: String) -> String {
        path.split(separator: "/").last.map(String.init) ?? path
    }

    /// The names in a directory, sorted by bytes, without `.` and `..`; empty where there is no such directory.
    public static func names(in path: String) throws(HostError) -> [String] {
        let descriptor = amorce_openat(AT_FDCWD, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0)
        if descriptor < 0 && errno == ENOENT { return [] }
        guard descriptor >= 0 else { throw HostError("open", path, errno: errno) }
        defer { close(descriptor) }
        var stream = try DirectoryStream(reading: descriptor, shown: path)
        var names: [[UInt8]] = []
        while let name = try stream.next() { names.append(name.nameBytes) }
        return names.sorted { $0.lexicographicallyPrecedes($1) }.map { String(decoding: $0, as: UTF8.self) }
    }

    /// Writes all of it at that place of an open file.
    static func write(
        _ bytes: UnsafeRawBufferPointer, to descriptor: CInt, at offset: Int64, shown: @autoclosure () -> String
    ) throws(HostError) {
        var done = 0
        while done < bytes.count {
            let count = pwrite(
                descriptor, bytes.baseAddress?.advanced(by: done), bytes.count - done, off_t(offset) + off_t(done))
            if count < 0 {
                let code = errno
                if code == EINTR { continue }
                throw HostError("write", shown(), errno: code)
            }
            done += count
        }
    }

    /// Reads until the room is full or the file ends; returns how many bytes came.
    static func read(
        _ descriptor: CInt, into room: UnsafeMutableRawBufferPointer, at offset: Int64,
        shown: @autoclosure () -> String
    ) throws(HostError) -> Int {
        var done = 0
        while done < room.count {
            let count = pread(
                descriptor, room.baseAddress?.advanced(by: done), room.count - done, off_t(offset) + off_t(done))
            if count < 0 {
                let code = errno
                if code == EINTR { continue }
                throw HostError("read", shown(), errno: code)
            }
            if count == 0 { break }
            done += count
        }
        return done
    }

    /// Removes a file or symlink; an absent name is fine.
    public static func remove(_ path: String) throws(HostError) {
        if unlink(path) != 0 && errno != ENOENT { throw HostError("unlink", path, errno: errno) }
    }

    public static func rename(_ from: String, to path: String) throws(HostError) {
        if Glibc.rename(from, path) != 0 { throw HostError("rename", path, errno: errno) }
    }

    public static func symlink(target: String, at path: String) throws(HostError) {
        if Glibc.symlink(target, path) != 0 { throw HostError("symlink", path, errno: errno) }
    }

    /// Makes `path` a symlink to `target` in one step, whether or not a symlink or file stands there.
    public static func replaceSymlink(target: String, at path: String) throws(HostError) {
        let temporary = path + ".amorce-new"
        try remove(temporary)
        try symlink(target: target, at: temporary)
        try rename(temporary, to: path)
    }

    public static func changeOwner(_ path: String, owner: UInt32, group: UInt32) throws(HostError) {
        if lchown(path, owner, group) != 0 { throw HostError("lchown", path, errno: errno) }
    }

    /// Every name of a tree, by descriptor, so that nobody who may write in it can lead the walk elsewhere. Names need not be
    /// UTF-8.
    public static func changeOwnerOfTree(_ path: String, owner: UInt32, group: UInt32) throws(HostError) {
        try changeOwner(AT_FDCWD, Array(path.utf8CString), owner: owner, group: group, shown: path)
    }

    private static func changeOwner(
        _ parent: CInt, _ name: [CChar], owner: UInt32, group: UInt32, shown: String
    ) throws(HostError) {
        if fchownat(parent, name, owner, group, AT_SYMLINK_NOFOLLOW) != 0 {
            throw HostError("fchownat", shown, errno: errno)
        }
        let descriptor = amorce_openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0)
        if descriptor < 0 && (errno == ENOTDIR || errno == ELOOP) { return }
        guard descriptor >= 0 else { throw HostError("open", shown, errno: errno) }
        defer { close(descriptor) }
        var stream = try DirectoryStream(reading: descriptor, shown: shown)
        while let entry = try stream.next() {
            try changeOwner(
                descriptor, entry, owner: owner, group: group, shown: shown + "/" + Printable.text(entry.nameBytes))
        }
    }

    public static func changeMode(_ path: String, _ mode: UInt32) throws(HostError) {
        if chmod(path, mode) != 0 { throw HostError("chmod", path, errno: errno) }
    }

    /// A rename or unlink in this directory is on disk when this returns: rename is atomic, but durable only then.
    public static func synchronizeDirectory(_ path: String) throws(HostError) {
        let descriptor = amorce_openat(AT_FDCWD, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0)
        guard descriptor >= 0 else { throw HostError("open", path, errno: errno) }
        defer { close(descriptor) }
        if fsync(descriptor) != 0 { throw HostError("fsync", path, errno: errno) }
    }

    /// Everything of the file system that `path` lies on is on disk when this returns.
    public static func synchronizeFileSystem(_ path: String) throws(HostError) {
        let descriptor = amorce_openat(AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0)
        guard descriptor >= 0 else { throw HostError("open", path, errno: errno) }
        defer { close(descriptor) }
        if amorce_syncfs(descriptor) != 0 { throw HostError("syncfs", path, errno: errno) }
    }

    /// Removes a tree without ever following a symlink or leaving it; an absent one is fine. Modes that lock a directory are
    /// opened first, so that what an interrupted run left can always be removed.
    public static func removeTree(_ path: String) throws(HostError) {
        guard let status = try status(path) else { return }
        if status.kind != .directory { return try remove(path) }
        try removeDirectory(AT_FDCWD, Array(path.utf8CString), shown: path)
    }

    private static func removeDirectory(_ parent: CInt, _ name: [CChar], shown: String) throws(HostError) {
        let flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC
        var descriptor = amorce_openat(parent, name, flags, 0)
        if descriptor < 0 && errno == EACCES {
            _ = fchmodat(parent, name, 0o700, 0)
            descriptor = amorce_openat(parent, name, flags, 0)
        }
        guard descriptor >= 0 else { throw HostError("open", shown, errno: errno) }
        defer { close(descriptor) }
        var stream = try DirectoryStream(reading: descriptor, shown: shown)
        var isOpened = false
        while let entry = try stream.next() {
            if unlinkat(descriptor, entry, 0) == 0 { continue }
            if errno == EACCES && !isOpened {
                isOpened = true
                _ = fchmod(descriptor, 0o700)
                if unlinkat(descriptor, entry, 0) == 0 { continue }
            }
            // Linux says EISDIR for a directory; POSIX says EPERM.
            guard errno == EISDIR || errno == EPERM else { throw HostError("unlink", shown, errno: errno) }
            try removeDirectory(descriptor, entry, shown: shown + "/" + Printable.text(entry.nameBytes))
        }
        if unlinkat(parent, name, AT_REMOVEDIR) != 0 && errno != ENOENT {
            throw HostError("rmdir", shown, errno: errno)
        }
    }

    /// Room left for an ordinary user on the file system of `path`: bytes and inodes.
    public static func room(at path: String) throws(HostError) -> (bytes: Int64, inodes: Int64) {
        var raw = statvfs()
        if statvfs(path, &raw) != 0 { throw HostError("statvfs", path, errno: errno) }
        return (Int64(clamping: UInt64(raw.f_bavail) * UInt64(raw.f_frsize)), Int64(clamping: UInt64(raw.f_favail)))
    }
}
