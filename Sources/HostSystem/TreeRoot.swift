internal import CLinux
internal import Glibc

/// The empty directory that an archive is unpacked into, held open. Every path below it is resolved from its descriptor by
/// openat2(2) (Linux 5.6) with RESOLVE_BENEATH, NO_SYMLINKS and NO_MAGICLINKS: the kernel refuses what a policy might have
/// overlooked. Safe to share between threads, each with a `TreeWriter` of its own.
final class TreeRoot: Sendable {
    struct Ownership: Equatable, Sendable {
        var owner: UInt32
        var group: UInt32
    }

    let descriptor: CInt
    let path: String
    /// Nil where what is made belongs to the right one by itself.
    let owner: Ownership?
    /// What openat's mode loses: the umask, and all of it where a default ACL decides (acl(5)).
    let lostModeBits: UInt32
    private let hasDefaultACL: Bool

    /// - Parameter owner: of everything that is made; looked at only when the process may give files away.
    /// - Parameter isEmpty: false where an earlier run of the same restore may have left a part of it.
    init(directory: String, owner: Ownership?, isEmpty: Bool = true) throws(HostError) {
        let descriptor = amorce_openat(AT_FDCWD, directory, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0)
        guard descriptor >= 0 else { throw HostError("open", directory, errno: errno) }
        let status: stat
        do throws(HostError) {
            status = try Self.status(descriptor, shown: directory, isEmpty: isEmpty)
        } catch {
            close(descriptor)
            throw error
        }
        let plain = Ownership(owner: geteuid(), group: getegid())
        // A file gets its directory's group where that is set-gid or the file system is mounted with grpid.
        let isInherited = status.st_mode & S_ISGID != 0 || status.st_gid != plain.group
        let wanted = geteuid() == 0 ? owner ?? plain : plain
        self.descriptor = descriptor
        path = directory
        self.owner = wanted != plain || isInherited && geteuid() == 0 ? wanted : nil
        hasDefaultACL = amorce_has_default_acl(descriptor) != 0
        lostModeBits = hasDefaultACL ? 0o777 : Self.umask()
    }

    private static func status(_ descriptor: CInt, shown path: String, isEmpty: Bool) throws(HostError) -> stat {
        if isEmpty {
            var stream = try DirectoryStream(reading: descriptor, shown: path)
            if try stream.next() != nil { throw HostError("extract", path, errno: ENOTEMPTY) }
        }
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { throw HostError("fstat", path, errno: errno) }
        return status
    }

    deinit { close(descriptor) }

    /// umask(2) can only be read by setting it, which another thread would feel; proc(5) just shows it.
    private static func umask() -> UInt32 {
        let lines = (try? FileReading.text("/proc/self/status", limit: 64 << 10))?.split(separator: "\n") ?? []
        let line = lines.first { $0.hasPrefix("Umask:") }
        return line.flatMap { UInt32($0.dropFirst(6).filter { !$0.isWhitespace }, radix: 8) } ?? 0o777
    }

    /// Whether what is to be unpacked there fits, as far as its file system can tell.
    static func checkRoom(at directory: String, bytes: Int64, inodes: Int64 = 0) throws {
        let room = try Files.room(at: directory)
        if bytes > room.bytes { throw ArchiveError.noRoom(needed: ByteCount(bytes), available: ByteCount(room.bytes)) }
        // 0: this file system has no fixed number of inodes (btrfs, some tmpfs), or none is left, which the first file will tell.
        if inodes > room.inodes && room.inodes > 0 {
            throw ArchiveError.noInodes(needed: inodes, available: room.inodes)
        }
    }

    /// A descriptor of what lies at a path below the root, or the negative errno.
    func open(_ path: [UInt8], _ flags: CInt, followingLinks: Bool = false) -> CInt {
        Self.open(path, below: descriptor, flags, followingLinks: followingLinks)
    }

    /// The same below any directory that is held open.
    static func open(
        _ path: [UInt8], below directory: CInt, _ flags: CInt, followingLinks: Bool = false
    ) -> CInt {
        let resolve =
            amorce_resolve_beneath | amorce_resolve_no_magiclinks | (followingLinks ? 0 : amorce_resolve_no_symlinks)
        let name = path.isEmpty ? [0x2e, 0] : path.terminated
        while true {
            let found = amorce_openat2(directory, name, UInt64(flags | O_CLOEXEC), 0, resolve)
            if found >= 0 { return found }
            // EAGAIN: a rename elsewhere in the system kept the kernel from being sure (openat2(2)).
            if errno != EAGAIN && errno != EINTR { return -errno }
        }
    }

    /// Follows a symlink in the complete tree: it may lead nowhere (yet), or in a circle, but nowhere outside.
    func checkStaysInside(_ symlink: [UInt8]) throws {
        let found = open(symlink, amorce_path_only, followingLinks: true)
        switch found {
        case 0...: close(found)
        case -ENOENT, -ENOTDIR, -ELOOP: return
        case -EXDEV, -ENAMETOOLONG: throw ArchiveError.refused(.linkOutside, entry: Printable.text(symlink))
        default: throw HostError("openat2", shown(symlink), errno: -found)
        }
    }

    /// Owner, mode and times of a directory whose entries are all made: making them changed its times, and a read-only mode
    /// would have kept them out.
    func settle(_ directory: [UInt8], mode: UInt32, modified: timespec?) throws(HostError) {
        let found = open(directory, O_RDONLY | O_DIRECTORY)
        guard found >= 0 else { throw HostError("openat2", shown(directory), errno: -found) }
        defer { close(found) }
        if let owner, fchown(found, owner.owner, owner.group) != 0 {
            throw HostError("fchown", shown(directory), errno: errno)
        }
        if fchmod(found, mode) != 0 { throw HostError("fchmod", shown(directory), errno: errno) }
        if let modified, futimens(found, [Self.omitted, modified]) != 0 {
            throw HostError("futimens", shown(directory), errno: errno)
        }
    }

    /// Mode and time of the root itself.
    func settle(mode: UInt32?, modified: timespec) throws(HostError) {
        if let mode, fchmod(descriptor, mode) != 0 { throw HostError("fchmod", path, errno: errno) }
        if futimens(descriptor, [Self.omitted, modified]) != 0 { throw HostError("futimens", path, errno: errno) }
    }

    /// Makes the calling thread's umask 0, so that a mode is given at open(2) and nothing is left to chmod. False where it is not
    /// to be had, or something else than the umask decides.
    func takeOwnUmask() -> Bool { !hasDefaultACL && amorce_own_umask() == 0 }

    /// Puts everything on disk: one syncfs(2) in place of an fsync for each file.
    func synchronize() throws(HostError) {
        if amorce_syncfs(descriptor) != 0 { throw HostError("syncfs", path, errno: errno) }
    }

    func shown(_ path: [UInt8]) -> String { self.path + "/" + Printable.text(path) }

    /// Access times stay what they are. UTIME_OMIT is a cast macro.
    static let omitted = timespec(tv_sec: 0, tv_nsec: (1 << 30) - 2)
}

extension Sequence<UInt8> {
    /// As C takes a name: with a NUL at its end.
    var terminated: [CChar] {
        var result: [CChar] = []
        result.reserveCapacity(underestimatedCount + 1)
        for byte in self { result.append(CChar(bitPattern: byte)) }
        result.append(0)
        return result
    }
}
