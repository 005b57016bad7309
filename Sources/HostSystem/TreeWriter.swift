internal import CLinux
internal import Glibc

/// Makes the members of an archive below one directory, which must be empty, belong to this process and be out of others'
/// reach (0700): then whatever is found in it is an earlier member of the same archive.
///
/// Every path is opened from the directory's descriptor by openat2(2) (Linux 5.6) with RESOLVE_BENEATH, NO_SYMLINKS and
/// NO_MAGICLINKS, and every file is created exclusively: the kernel refuses what the policy might have overlooked. A name that
/// comes again replaces the earlier one where both are files or both symlinks, as a tar with appended members means it; a
/// directory takes the later entry's mode and times; any change of kind is refused.
///
/// Not Sendable: one thread writes. On an error the caller removes the tree.
struct TreeWriter: ~Copyable {
    struct Ownership: Equatable {
        var owner: UInt32
        var group: UInt32
    }

    private let root: CInt
    private let shownRoot: String
    private let owner: Ownership?
    private let replacesEarlier: Bool
    /// What openat's mode loses: the umask, and all of it where a default ACL decides (acl(5)).
    private let lostModeBits: UInt32
    private var cache: [(path: [UInt8], descriptor: CInt)] = []
    private var directories: [Directory] = []
    private var symlinks: [[UInt8]] = []
    private(set) var files = 0
    private(set) var links = 0
    private(set) var directoryCount = 0

    private struct Directory {
        let path: [UInt8]
        let mode: UInt32
        let modified: timespec?
    }

    /// - Parameter owner: of everything that is made; looked at only when the process may give files away.
    init(directory: String, owner: Ownership?, replacesEarlier: Bool) throws(HostError) {
        let descriptor = amorce_openat(AT_FDCWD, directory, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0)
        guard descriptor >= 0 else { throw HostError("open", directory, errno: errno) }
        let status: stat
        do throws(HostError) {
            status = try Self.emptyDirectory(descriptor, shown: directory)
        } catch {
            close(descriptor)
            throw error
        }
        let plain = Ownership(owner: geteuid(), group: getegid())
        // A file gets its directory's group where that is set-gid or the file system is mounted with grpid.
        let isInherited = status.st_mode & S_ISGID != 0 || status.st_gid != plain.group
        let wanted = geteuid() == 0 ? owner ?? plain : plain
        root = descriptor
        shownRoot = directory
        self.replacesEarlier = replacesEarlier
        self.owner = wanted != plain || isInherited && geteuid() == 0 ? wanted : nil
        lostModeBits = amorce_has_default_acl(descriptor) != 0 ? 0o777 : Self.umask()
    }

    private static func emptyDirectory(_ descriptor: CInt, shown path: String) throws(HostError) -> stat {
        var stream = try DirectoryStream(reading: descriptor, shown: path)
        if stream.next() != nil { throw HostError("extract", path, errno: ENOTEMPTY) }
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { throw HostError("fstat", path, errno: errno) }
        return status
    }

    deinit {
        for entry in cache { close(entry.descriptor) }
        close(root)
    }

    /// umask(2) can only be read by setting it, which another thread would feel; proc(5) just shows it.
    private static func umask() -> UInt32 {
        let lines = (try? FileReading.text("/proc/self/status", limit: 64 << 10))?.split(separator: "\n") ?? []
        let line = lines.first { $0.hasPrefix("Umask:") }
        return line.flatMap { UInt32($0.dropFirst(6).filter { !$0.isWhitespace }, radix: 8) } ?? 0o777
    }

    // MARK: Members

    /// - Parameter contents: hands out the pieces of a regular file in order, with gaps for holes.
    mutating func make(
        _ member: ExtractionPolicy.Member, size: Int64, modified: (seconds: Int64, nanoseconds: Int)?,
        contents: ((Int64, UnsafeRawBufferPointer) throws -> Void) throws -> Void
    ) throws {
        let (parentPath, name) = Self.split(member.path)
        let parent = try descriptor(of: parentPath, for: member)
        let time = modified.map { timespec(tv_sec: time_t($0.seconds), tv_nsec: $0.nanoseconds) }
        switch member.kind {
        case .regular:
            let file = try create(parent, name, member)
            do {
                try write(file, member, size: size, contents: contents)
                try finish(file, member, time)
            } catch {
                close(file)
                throw error
            }
            // Some file systems tell only now that the data found no room.
            if close(file) != 0 { throw failure("close", member) }
            files += 1
        case .directory:
            try makeDirectory(parent, name, member)
            directories.append(Directory(path: member.path, mode: member.mode, modified: time))
        case .symlink(let target):
            try link(parent, name, member) {
                symlinkat(Self.text(target), parent, name)
            }
            if let owner, fchownat(parent, name, owner.owner, owner.group, AT_SYMLINK_NOFOLLOW) != 0 {
                throw failure("fchownat", member)
            }
            if let time, utimensat(parent, name, [Self.omitted, time], AT_SYMLINK_NOFOLLOW) != 0 {
                throw failure("utimensat", member)
            }
            symlinks.append(member.path)
            links += 1
        case .hardLink(let target):
            try hardLink(parent, name, member, to: target)
            links += 1
        }
    }

    private mutating func create(_ parent: CInt, _ name: [CChar], _ member: ExtractionPolicy.Member) throws -> CInt {
        let flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC
        var file = amorce_openat(parent, name, flags, member.mode)
        if file < 0 && errno == EEXIST {
            try removeEarlier(parent, name, member)
            file = amorce_openat(parent, name, flags, member.mode)
        }
        guard file >= 0 else { throw failure("open", member) }
        return file
    }

    private func write(
        _ file: CInt, _ member: ExtractionPolicy.Member, size: Int64,
        contents: ((Int64, UnsafeRawBufferPointer) throws -> Void) throws -> Void
    ) throws {
        var end: Int64 = 0
        try contents { offset, bytes in
            guard offset >= end, offset <= size, Int64(bytes.count) <= size - offset else {
                throw ArchiveError.damaged(
                    "the contents do not lie within the stated size", entry: Printable.text(member.path))
            }
            var rest = bytes
            var position = offset
            while !rest.isEmpty {
                let count = pwrite(file, rest.baseAddress, rest.count, off_t(position))
                if count < 0 {
                    if errno == EINTR { continue }
                    throw failure("write", member)
                }
                rest = UnsafeRawBufferPointer(rebasing: rest.dropFirst(count))
                position += Int64(count)
            }
            end = position
        }
        // A hole at the end.
        if end < size && ftruncate(file, off_t(size)) != 0 { throw failure("ftruncate", member) }
    }

    private mutating func finish(_ file: CInt, _ member: ExtractionPolicy.Member, _ time: timespec?) throws {
        // Owner before mode: chown clears bits of the mode.
        if let owner, fchown(file, owner.owner, owner.group) != 0 { throw failure("fchown", member) }
        if member.mode & lostModeBits != 0 && fchmod(file, member.mode) != 0 { throw failure("fchmod", member) }
        if let time, futimens(file, [Self.omitted, time]) != 0 { throw failure("futimens", member) }
    }

    private mutating func makeDirectory(_ parent: CInt, _ name: [CChar], _ member: ExtractionPolicy.Member) throws {
        if mkdirat(parent, name, 0o700) == 0 {
            directoryCount += 1
            return
        }
        guard errno == EEXIST else { throw failure("mkdir", member) }
        let kind = try kind(parent, name, member)
        if kind != "directory" { throw refusal(.changesKind(from: kind, to: "directory"), member) }
    }

    private mutating func hardLink(
        _ parent: CInt, _ name: [CChar], _ member: ExtractionPolicy.Member, to target: [UInt8]
    ) throws {
        if target == member.path { throw refusal(.hardLinkToNoEarlierFile, member) }
        let (targetParentPath, targetName) = Self.split(target)
        // Not the cache's: it may close the descriptor of the member's own parent.
        let targetParent = attempt(targetParentPath, amorce_path_only | O_DIRECTORY)
        guard targetParent >= 0 else {
            guard [-ENOENT, -ENOTDIR, -ELOOP].contains(targetParent) else {
                throw HostError("openat2", shown(target), errno: -targetParent)
            }
            throw refusal(.hardLinkToNoEarlierFile, member)
        }
        defer { close(targetParent) }
        var status = stat()
        guard fstatat(targetParent, targetName, &status, AT_SYMLINK_NOFOLLOW) == 0, status.st_mode & S_IFMT == S_IFREG
        else {
            throw refusal(.hardLinkToNoEarlierFile, member)
        }
        // Flags 0: linkat does not follow a symlink in the last component.
        try link(parent, name, member) { linkat(targetParent, targetName, parent, name, 0) }
    }

    private func link(
        _ parent: CInt, _ name: [CChar], _ member: ExtractionPolicy.Member, _ call: () -> CInt
    ) throws {
        if call() == 0 { return }
        if errno == EEXIST {
            try removeEarlier(parent, name, member)
            if call() == 0 { return }
        }
        throw failure("link", member)
    }

    /// Removes an earlier member of the same kind, for a later one to take its name.
    private func removeEarlier(_ parent: CInt, _ name: [CChar], _ member: ExtractionPolicy.Member) throws {
        let old = try kind(parent, name, member)
        if old != member.kind.name { throw refusal(.changesKind(from: old, to: member.kind.name), member) }
        if !replacesEarlier { throw refusal(.duplicate, member) }
        if unlinkat(parent, name, 0) != 0 { throw failure("unlink", member) }
    }

    private func kind(_ parent: CInt, _ name: [CChar], _ member: ExtractionPolicy.Member) throws -> String {
        var status = stat()
        if fstatat(parent, name, &status, AT_SYMLINK_NOFOLLOW) != 0 { throw failure("stat", member) }
        switch status.st_mode & S_IFMT {
        case S_IFDIR: return "directory"
        case S_IFLNK: return "symlink"
        default: return "file"
        }
    }

    // MARK: Directories

    /// A descriptor of a directory below the root, made with what is missing above it. It belongs to the cache, which holds the
    /// few last ones: a tar walks its directories one after the other, and a process may have few descriptors to spend.
    private mutating func descriptor(of path: [UInt8], for member: ExtractionPolicy.Member) throws -> CInt {
        if path.isEmpty { return root }
        if let index = cache.lastIndex(where: { $0.path == path }) {
            if index < cache.count - 1 { cache.append(cache.remove(at: index)) }
            return cache[cache.count - 1].descriptor
        }
        var descriptor = attempt(path, amorce_path_only | O_DIRECTORY)
        if descriptor == -ENOENT {
            let (above, name) = Self.split(path)
            let parent = try self.descriptor(of: above, for: member)
            // 0755, as tar makes what no entry describes.
            if mkdirat(parent, name, 0o700) != 0 { throw failure("mkdir", member) }
            directoryCount += 1
            directories.append(Directory(path: path, mode: 0o755, modified: nil))
            descriptor = attempt(path, amorce_path_only | O_DIRECTORY)
        }
        switch descriptor {
        case 0...: break
        case -ELOOP: throw refusal(.throughSymlink, member)
        case -ENOTDIR: throw refusal(.throughFile, member)
        default: throw HostError("openat2", shown(path), errno: -descriptor)
        }
        if cache.count >= 8 { close(cache.removeFirst().descriptor) }
        cache.append((path, descriptor))
        return descriptor
    }

    /// A descriptor of what lies at a path below the root, or the negative errno.
    private func attempt(_ path: [UInt8], _ flags: CInt, followingLinks: Bool = false) -> CInt {
        let resolve =
            amorce_resolve_beneath | amorce_resolve_no_magiclinks | (followingLinks ? 0 : amorce_resolve_no_symlinks)
        let name = path.isEmpty ? [0x2e, 0] : Self.text(path)
        while true {
            let descriptor = amorce_openat2(root, name, UInt64(flags | O_CLOEXEC), 0, resolve)
            if descriptor >= 0 { return descriptor }
            // EAGAIN: a rename elsewhere in the system kept the kernel from being sure (openat2(2)).
            if errno != EAGAIN && errno != EINTR { return -errno }
        }
    }

    // MARK: The end

    /// Follows every symlink once more in the complete tree, gives the directories their owners, modes and times (making their
    /// entries changed the times), and puts everything on disk: one syncfs(2) in place of an fsync for each file.
    mutating func finish(stop: StopFlag) throws {
        for path in symlinks {
            try stop.check()
            let descriptor = attempt(path, amorce_path_only, followingLinks: true)
            switch descriptor {
            case 0...: close(descriptor)
            // It leads nowhere (yet), or in a circle: nowhere outside.
            case -ENOENT, -ENOTDIR, -ELOOP: continue
            case -EXDEV, -ENAMETOOLONG: throw ArchiveError.refused(.linkOutside, entry: Printable.text(path))
            default: throw HostError("openat2", shown(path), errno: -descriptor)
            }
        }
        for directory in directories {
            try stop.check()
            let descriptor = attempt(directory.path, O_RDONLY | O_DIRECTORY)
            guard descriptor >= 0 else { throw HostError("openat2", shown(directory.path), errno: -descriptor) }
            defer { close(descriptor) }
            if let owner, fchown(descriptor, owner.owner, owner.group) != 0 {
                throw HostError("fchown", shown(directory.path), errno: errno)
            }
            if fchmod(descriptor, directory.mode) != 0 {
                throw HostError("fchmod", shown(directory.path), errno: errno)
            }
            if let time = directory.modified, futimens(descriptor, [Self.omitted, time]) != 0 {
                throw HostError("futimens", shown(directory.path), errno: errno)
            }
        }
        if amorce_syncfs(root) != 0 { throw HostError("syncfs", shownRoot, errno: errno) }
    }

    // MARK: Small things

    /// Access times stay what they are. UTIME_OMIT is a cast macro.
    private static let omitted = timespec(tv_sec: 0, tv_nsec: (1 << 30) - 2)

    private static func split(_ path: [UInt8]) -> (parent: [UInt8], name: [CChar]) {
        guard let slash = path.lastIndex(of: UInt8(ascii: "/")) else { return ([], text(path)) }
        return (Array(path[..<slash]), text(path[(slash + 1)...]))
    }

    private static func text(_ bytes: some Sequence<UInt8>) -> [CChar] {
        var result = bytes.map { CChar(bitPattern: $0) }
        result.append(0)
        return result
    }

    private func shown(_ path: [UInt8]) -> String { shownRoot + "/" + Printable.text(path) }

    private func failure(_ call: String, _ member: ExtractionPolicy.Member) -> HostError {
        let code = errno
        return HostError(call, shown(member.path), errno: code)
    }

    private func refusal(_ reason: RefusedEntry, _ member: ExtractionPolicy.Member) -> ArchiveError {
        .refused(reason, entry: Printable.text(member.path))
    }
}
