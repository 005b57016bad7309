internal import CLinux
internal import Glibc

/// Makes the members of an archive below one `TreeRoot`, which must have been empty, belong to this process and be out of
/// others' reach (0700): then whatever is found in it is an earlier member of the same archive.
///
/// Every file is created exclusively. A name that comes again replaces the earlier one where both are files or both symlinks, as
/// a tar with appended members means it; a directory takes the later entry's mode and times; any change of kind is refused.
///
/// Not Sendable: one thread writes by it. Several may write below one root, each by its own, as long as they make no two members
/// of the same name at once. On an error the caller removes the tree.
struct TreeWriter: ~Copyable {
    private let root: TreeRoot
    private let replacesEarlier: Bool
    /// What openat's mode loses on this thread.
    private let lostModeBits: UInt32
    /// Whether a directory that is not among the last few is most likely one that nobody has made.
    private let expectsNewDirectories: Bool
    private var cache: [(path: [UInt8], descriptor: CInt)] = []
    private(set) var directories: [Directory] = []
    private(set) var symlinks: [[UInt8]] = []
    private(set) var files = 0
    private(set) var links = 0
    private(set) var directoryCount = 0

    /// A directory that an earlier entry implied, and is there: it is told of now.
    mutating func tell(of directory: [UInt8], mode: UInt32, modified: timespec) {
        directories.append(Directory(path: directory, mode: mode, modified: modified, isImplied: false))
    }

    struct Directory: Sendable {
        let path: [UInt8]
        let mode: UInt32
        let modified: timespec?
        /// Made because something below it was: no entry has told of it.
        let isImplied: Bool
    }

    /// - Parameter lostModeBits: of this thread, where they are not the process's.
    init(
        _ root: TreeRoot, replacesEarlier: Bool, lostModeBits: UInt32? = nil, expectsNewDirectories: Bool = false
    ) {
        self.expectsNewDirectories = expectsNewDirectories
        self.root = root
        self.replacesEarlier = replacesEarlier
        self.lostModeBits = lostModeBits ?? root.lostModeBits
    }

    deinit { for entry in cache { close(entry.descriptor) } }

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
            directories.append(Directory(path: member.path, mode: member.mode, modified: time, isImplied: false))
        case .symlink(let target):
            try link(parent, name, member) {
                symlinkat(target.terminated, parent, name)
            }
            if let owner = root.owner, fchownat(parent, name, owner.owner, owner.group, AT_SYMLINK_NOFOLLOW) != 0 {
                throw failure("fchownat", member)
            }
            if let time, utimensat(parent, name, [TreeRoot.omitted, time], AT_SYMLINK_NOFOLLOW) != 0 {
                throw failure("utimensat", member)
            }
            symlinks.append(member.path)
            links += 1
        case .hardLink(let target):
            try hardLink(parent, name, member, to: target)
            links += 1
        }
    }

    /// A whole file whose bytes are in memory.
    mutating func make(
        file path: [UInt8], mode: UInt32, modified: Int64, bytes: UnsafeRawBufferPointer
    ) throws {
        let member = ExtractionPolicy.Member(path: path, kind: .regular, mode: mode)
        try make(member, size: Int64(bytes.count), modified: Self.time(modified)) { body in
            if !bytes.isEmpty { try body(0, bytes) }
        }
    }

    /// A new file of which the caller writes the bytes, in whatever order, and then calls `finish`. The descriptor is the caller's.
    mutating func begin(largeFile path: [UInt8], mode: UInt32) throws -> CInt {
        let member = ExtractionPolicy.Member(path: path, kind: .regular, mode: mode)
        let (parentPath, name) = Self.split(path)
        return try create(descriptor(of: parentPath, for: member), name, member)
    }

    /// Closes it.
    mutating func finish(largeFile descriptor: CInt, path: [UInt8], mode: UInt32, modified: Int64) throws {
        let member = ExtractionPolicy.Member(path: path, kind: .regular, mode: mode)
        do {
            try finish(descriptor, member, timespec(nanoseconds: modified))
        } catch {
            close(descriptor)
            throw error
        }
        if close(descriptor) != 0 { throw failure("close", member) }
        files += 1
    }

    private static func time(_ nanoseconds: Int64) -> (seconds: Int64, nanoseconds: Int) {
        let time = timespec(nanoseconds: nanoseconds)
        return (Int64(time.tv_sec), time.tv_nsec)
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
            try Files.write(bytes, to: file, at: offset, shown: root.shown(member.path))
            end = offset + Int64(bytes.count)
        }
        // A hole at the end.
        if end < size && ftruncate(file, off_t(size)) != 0 { throw failure("ftruncate", member) }
    }

    private mutating func finish(_ file: CInt, _ member: ExtractionPolicy.Member, _ time: timespec?) throws {
        // Owner before mode: chown clears bits of the mode.
        if let owner = root.owner, fchown(file, owner.owner, owner.group) != 0 { throw failure("fchown", member) }
        if member.mode & lostModeBits != 0 && fchmod(file, member.mode) != 0 { throw failure("fchmod", member) }
        if let time, futimens(file, [TreeRoot.omitted, time]) != 0 { throw failure("futimens", member) }
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
        let targetParent = root.open(targetParentPath, amorce_path_only | O_DIRECTORY)
        guard targetParent >= 0 else {
            guard [-ENOENT, -ENOTDIR, -ELOOP].contains(targetParent) else {
                throw HostError("openat2", root.shown(target), errno: -targetParent)
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
        if path.isEmpty { return root.descriptor }
        if let index = cache.lastIndex(where: { $0.path == path }) {
            if index < cache.count - 1 { cache.append(cache.remove(at: index)) }
            return cache[cache.count - 1].descriptor
        }
        var descriptor = expectsNewDirectories ? -ENOENT : root.open(path, amorce_path_only | O_DIRECTORY)
        if descriptor == -ENOENT {
            let (above, name) = Self.split(path)
            let parent = try self.descriptor(of: above, for: member)
            // 0755, as tar makes what no entry describes.
            if mkdirat(parent, name, 0o700) == 0 {
                directoryCount += 1
                directories.append(Directory(path: path, mode: 0o755, modified: nil, isImplied: true))
            } else if errno != EEXIST {
                // Else it is there, or another thread has made it.
                throw failure("mkdir", member)
            }
            descriptor = root.open(path, amorce_path_only | O_DIRECTORY)
        }
        switch descriptor {
        case 0...: break
        case -ELOOP: throw refusal(.throughSymlink, member)
        case -ENOTDIR: throw refusal(.throughFile, member)
        default: throw HostError("openat2", root.shown(path), errno: -descriptor)
        }
        if cache.count >= 8 { close(cache.removeFirst().descriptor) }
        cache.append((path, descriptor))
        return descriptor
    }

    // MARK: The end

    /// What is left to do when every member is made: symlinks are followed once more, directories settled, all put on disk.
    borrowing func finish(stop: StopFlag) throws {
        try Self.settle(root, symlinks: symlinks, directories: directories, stop: stop)
        try root.synchronize()
    }

    /// The same for what several writers made below one root, and not yet on disk.
    static func settle(_ root: TreeRoot, symlinks: [[UInt8]], directories: [Directory], stop: StopFlag) throws {
        for path in symlinks {
            try stop.check()
            try root.checkStaysInside(path)
        }
        // What an entry tells counts in place of what was only implied, and of several entries the last one.
        let told = Set(directories.lazy.filter { !$0.isImplied }.map(\.path))
        for directory in directories where !directory.isImplied || !told.contains(directory.path) {
            try stop.check()
            try root.settle(directory.path, mode: directory.mode, modified: directory.modified)
        }
    }

    // MARK: Small things

    private static func split(_ path: [UInt8]) -> (parent: [UInt8], name: [CChar]) {
        guard let slash = path.lastIndex(of: UInt8(ascii: "/")) else { return ([], path.terminated) }
        return (Array(path[..<slash]), path[(slash + 1)...].terminated)
    }

    private func failure(_ call: String, _ member: ExtractionPolicy.Member) -> HostError {
        let code = errno
        return HostError(call, root.shown(member.path), errno: code)
    }

    private func refusal(_ reason: RefusedEntry, _ member: ExtractionPolicy.Member) -> ArchiveError {
        .refused(reason, entry: Printable.text(member.path))
    }
}

extension timespec {
    /// Since 1970; before it, too.
    init(nanoseconds: Int64) {
        let (seconds, rest) = nanoseconds.quotientAndRemainder(dividingBy: 1_000_000_000)
        self.init(
            tv_sec: time_t(rest < 0 ? seconds - 1 : seconds), tv_nsec: Int(rest < 0 ? rest + 1_000_000_000 : rest))
    }

    /// Since 1970. File systems keep times before 1678 and after 2261, which 64 bits do not hold: these become the first or last one.
    var nanoseconds: Int64 {
        let whole = Int64(tv_sec).multipliedReportingOverflow(by: 1_000_000_000)
        let sum = whole.partialValue.addingReportingOverflow(Int64(tv_nsec))
        return whole.overflow || sum.overflow ? tv_sec < 0 ? .min : .max : sum.partialValue
    }
}
