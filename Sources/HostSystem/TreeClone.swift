internal import CLinux
internal import Glibc

/// A second tree with the contents of a first one, at next to no cost: regular files share their blocks (FICLONE) where the
/// file system can, else they are hard links. rsync writes changed files to a new name and renames it, so a change in the new
/// tree never reaches the old one; what a program would write in place is named in `copied` and gets bytes of its own.
public struct TreeClone {
    public struct Result: Sendable, Equatable {
        public var files = 0
        public var directories = 0
        public var links = 0
        /// How most files came: `reflink`, `hard link` or `copy`.
        public var method = "hard link"
    }

    private let copied: Set<String>
    private let stop: StopFlag
    private var result = Result()
    private var canReflink = true
    private var canLink = true

    /// - Parameter copied: paths relative to the root, below which every file is copied.
    public static func make(
        from source: String, to destination: String, copied: [String] = [], excluded: [String] = [], stop: StopFlag
    ) throws -> Result {
        var clone = TreeClone(copied: Set(copied), stop: stop)
        guard let root = try Files.status(source, followingLinks: true), root.kind == .directory else {
            throw HostError("opendir", source, errno: ENOTDIR)
        }
        try Files.makeNewDirectory(destination, mode: 0o700)
        let from = amorce_openat(AT_FDCWD, source, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0)
        guard from >= 0 else { throw HostError("open", source, errno: errno) }
        defer { close(from) }
        let to = amorce_openat(AT_FDCWD, destination, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0)
        guard to >= 0 else { throw HostError("open", destination, errno: errno) }
        defer { close(to) }
        try clone.copyDirectory(from, to, relative: "", isCopied: false, excluded: Set(excluded))
        if clone.canReflink { clone.result.method = "reflink" }
        return clone.result
    }

    private init(copied: Set<String>, stop: StopFlag) {
        self.copied = copied
        self.stop = stop
    }

    private mutating func copyDirectory(
        _ from: CInt, _ to: CInt, relative: String, isCopied: Bool, excluded: Set<String>
    ) throws {
        try stop.check()
        var stream = try DirectoryStream(reading: from, shown: relative)
        while let name = try stream.next() {
            let path = (relative.isEmpty ? "" : relative + "/") + String(decoding: name.nameBytes, as: UTF8.self)
            if excluded.contains(path) { continue }
            try copyEntry(from, to, name, path: path, isCopied: isCopied || copied.contains(path), excluded: excluded)
        }
        // The directory's own mode, owner and times last: creating entries changed the times, and a read-only mode would have
        // kept them out.
        var status = stat()
        if fstat(from, &status) != 0 { throw HostError("fstat", relative, errno: errno) }
        try apply(status, to: to, path: relative)
    }

    private func apply(_ status: stat, to descriptor: CInt, path: String) throws {
        if geteuid() == 0 && fchown(descriptor, status.st_uid, status.st_gid) != 0 {
            throw HostError("fchown", path, errno: errno)
        }
        if fchmod(descriptor, status.st_mode & 0o7777) != 0 { throw HostError("fchmod", path, errno: errno) }
        let times = [status.st_atim, status.st_mtim]
        if futimens(descriptor, times) != 0 { throw HostError("futimens", path, errno: errno) }
    }

    private mutating func copyEntry(
        _ from: CInt, _ to: CInt, _ name: [CChar], path: String, isCopied: Bool, excluded: Set<String>
    ) throws {
        var status = stat()
        if fstatat(from, name, &status, AT_SYMLINK_NOFOLLOW) != 0 { throw HostError("stat", path, errno: errno) }
        switch status.st_mode & S_IFMT {
        case S_IFDIR:
            if mkdirat(to, name, 0o700) != 0 { throw HostError("mkdir", path, errno: errno) }
            let flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC
            let source = amorce_openat(from, name, flags, 0)
            guard source >= 0 else { throw HostError("open", path, errno: errno) }
            defer { close(source) }
            let target = amorce_openat(to, name, flags, 0)
            guard target >= 0 else { throw HostError("open", path, errno: errno) }
            defer { close(target) }
            try copyDirectory(source, target, relative: path, isCopied: isCopied, excluded: excluded)
            result.directories += 1
        case S_IFLNK:
            var target = [CChar](repeating: 0, count: 4097)
            let length = readlinkat(from, name, &target, 4096)
            if length < 0 || symlinkat(Array(target.prefix(length)) + [0], to, name) != 0 {
                throw HostError("symlink", path, errno: errno)
            }
            if geteuid() == 0 { _ = fchownat(to, name, status.st_uid, status.st_gid, AT_SYMLINK_NOFOLLOW) }
            // Else rsync would find every symlink changed, in every release.
            if utimensat(to, name, [status.st_atim, status.st_mtim], AT_SYMLINK_NOFOLLOW) != 0 {
                throw HostError("utimensat", path, errno: errno)
            }
            result.links += 1
        case S_IFREG:
            try copyFile(from, to, name, status, path: path, isCopied: isCopied)
            result.files += 1
        default:
            break  // A socket or FIFO of a running application is no part of a release.
        }
    }

    private mutating func copyFile(
        _ from: CInt, _ to: CInt, _ name: [CChar], _ status: stat, path: String, isCopied: Bool
    ) throws {
        if !canReflink && canLink && !isCopied {
            if linkat(from, name, to, name, 0) == 0 { return }
            // EMLINK: this one file has all the links it may have. EPERM/EXDEV: no links here at all.
            guard errno == EMLINK || errno == EPERM || errno == EXDEV else {
                throw HostError("link", path, errno: errno)
            }
            if errno != EMLINK {
                canLink = false
                result.method = "copy"
            }
        }
        let source = amorce_openat(from, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC, 0)
        guard source >= 0 else { throw HostError("open", path, errno: errno) }
        defer { close(source) }
        let target = amorce_openat(to, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0o600)
        guard target >= 0 else { throw HostError("open", path, errno: errno) }
        defer { close(target) }
        if canReflink {
            if amorce_clone_file(target, source) == 0 { return try apply(status, to: target, path: path) }
            // EOPNOTSUPP, EXDEV, EINVAL, ENOTTY: this file system shares no blocks; not tried again.
            canReflink = false
            if !isCopied {
                if unlinkat(to, name, 0) != 0 { throw HostError("unlink", path, errno: errno) }
                return try copyFile(from, to, name, status, path: path, isCopied: isCopied)
            }
        }
        var left = status.st_size
        while left > 0 {
            try stop.check()
            let count = amorce_copy_range(target, source, Int(min(left, 1 << 30)))
            if count < 0 { throw HostError("copy_file_range", path, errno: errno) }
            if count == 0 { break }
            left -= off_t(count)
        }
        try apply(status, to: target, path: path)
    }
}
