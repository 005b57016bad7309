internal import CLinux
internal import Glibc

/// A directory held open, and work on what is below it that cannot be led out of it: no symlink is followed, in the
/// last component of its own path or below.
public struct OpenTree: ~Copyable {
    public let path: String
    private let descriptor: CInt

    /// Throws `HostError` with ENOTDIR or ELOOP where the path is a symlink or no directory.
    public init(_ path: String) throws(HostError) {
        // With a slash at its end the path of a symlink would be followed in spite of O_NOFOLLOW.
        var trimmed = path
        while trimmed.count > 1 && trimmed.hasSuffix("/") { trimmed.removeLast() }
        self.path = trimmed
        descriptor = amorce_openat(AT_FDCWD, trimmed, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0)
        guard descriptor >= 0 else { throw HostError("open", trimmed, errno: errno) }
    }

    deinit { close(descriptor) }

    /// How many entries are below it, of every kind; nothing at or below an `excluded` relative path is counted.
    public func count(excluding excluded: Set<String> = [], stop: StopFlag) throws -> Int {
        var total = 0
        try Self.walk(descriptor, relative: "", stop: stop) { _, relative, _ in
            if excluded.contains(relative) { return false }
            total += 1
            return true
        }
        return total
    }

    /// Removes every directory of that name, wherever it is below.
    public func removeDirectories(named wanted: String, stop: StopFlag) throws {
        var found: [String] = []
        try Self.walk(descriptor, relative: "", stop: stop) { name, relative, isDirectory in
            guard isDirectory && name.nameBytes == Array(wanted.utf8) else { return true }
            found.append(relative)
            return false
        }
        for relative in found { try Files.removeTree(path + "/" + relative) }
    }

    /// Gives each of these files an inode of its own where it shares one with another name (a hard link): bytes, owner,
    /// mode and times stay, and what is done to the file from then on does not reach the other name. Absent names and
    /// what is no regular file are left alone. Returns how many files were separated. Extended attributes are not kept.
    ///
    /// Names are relative, as bytes. Each file is replaced by a rename, so a reader sees it whole at any time.
    public func separate(_ names: [[UInt8]], stop: StopFlag) throws -> Int {
        var done = 0
        for name in names {
            try stop.check()
            if try separate(name) { done += 1 }
        }
        return done
    }

    private func separate(_ name: [UInt8]) throws(HostError) -> Bool {
        let shown = path + "/" + Printable.text(name)
        let slash = name.lastIndex(of: 0x2f)
        let folder = slash.map { Array(name[..<$0]) } ?? Array(".".utf8)
        let last = Self.terminated(Array(name[(slash.map { $0 + 1 } ?? 0)...]))
        let resolve = amorce_resolve_beneath | amorce_resolve_no_symlinks | amorce_resolve_no_magiclinks
        let parent = amorce_openat2(
            descriptor, Self.terminated(folder), UInt64(O_RDONLY | O_DIRECTORY | O_CLOEXEC), 0, resolve)
        if parent < 0 && (errno == ENOENT || errno == ENOTDIR) { return false }
        guard parent >= 0 else { throw HostError("openat2", shown, errno: errno) }
        defer { close(parent) }

        var status = stat()
        if fstatat(parent, last, &status, AT_SYMLINK_NOFOLLOW) != 0 {
            if errno == ENOENT { return false }
            throw HostError("stat", shown, errno: errno)
        }
        guard status.st_mode & S_IFMT == S_IFREG && status.st_nlink > 1 else { return false }
        let source = amorce_openat(parent, last, O_RDONLY | O_NOFOLLOW | O_CLOEXEC, 0)
        guard source >= 0 else { throw HostError("open", shown, errno: errno) }
        defer { close(source) }

        let temporary = Self.terminated(Array((".amorce-" + Host.randomHex(bytes: 8)).utf8))
        let copy = amorce_openat(parent, temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0o600)
        guard copy >= 0 else { throw HostError("open", shown, errno: errno) }
        defer { close(copy) }
        do throws(HostError) {
            try Self.copy(source, to: copy, status, shown: shown)
            if renameat(parent, temporary, parent, last) != 0 { throw HostError("rename", shown, errno: errno) }
        } catch {
            unlinkat(parent, temporary, 0)
            throw error
        }
        return true
    }

    private static func copy(_ source: CInt, to copy: CInt, _ status: stat, shown: String) throws(HostError) {
        if amorce_clone_file(copy, source) != 0 {
            while true {
                let count = amorce_copy_range(copy, source, 1 << 30)
                if count < 0 { throw HostError("copy_file_range", shown, errno: errno) }
                if count == 0 { break }
            }
        }
        if geteuid() == 0 && fchown(copy, status.st_uid, status.st_gid) != 0 {
            throw HostError("fchown", shown, errno: errno)
        }
        if fchmod(copy, status.st_mode & 0o7777) != 0 { throw HostError("fchmod", shown, errno: errno) }
        if futimens(copy, [status.st_atim, status.st_mtim]) != 0 { throw HostError("futimens", shown, errno: errno) }
    }

    /// Visits every entry; `visit` says whether to go down into a directory.
    private static func walk(
        _ descriptor: CInt, relative: String, stop: StopFlag, visit: ([CChar], String, Bool) throws -> Bool
    ) throws {
        try stop.check()
        var stream = try DirectoryStream(reading: descriptor, shown: relative)
        while let name = try stream.next() {
            let path = (relative.isEmpty ? "" : relative + "/") + String(decoding: name.nameBytes, as: UTF8.self)
            var status = stat()
            if fstatat(descriptor, name, &status, AT_SYMLINK_NOFOLLOW) != 0 {
                if errno == ENOENT { continue }
                throw HostError("stat", path, errno: errno)
            }
            let isDirectory = status.st_mode & S_IFMT == S_IFDIR
            guard try visit(name, path, isDirectory), isDirectory else { continue }
            let child = amorce_openat(descriptor, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0)
            if child < 0 && errno == ENOENT { continue }
            guard child >= 0 else { throw HostError("open", path, errno: errno) }
            defer { close(child) }
            try walk(child, relative: path, stop: stop, visit: visit)
        }
    }

    private static func terminated(_ bytes: [UInt8]) -> [CChar] { bytes.map { CChar(bitPattern: $0) } + [0] }
}
