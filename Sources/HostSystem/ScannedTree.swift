internal import CLinux
internal import Glibc

/// What a directory held when it was walked: every file, directory and symlink below it, in the order of directories' and then
/// entries' names as bytes. Compact: some 50 bytes an entry. Immutable, so any thread may read it.
///
/// Of several hard links to one file the first is the file, the others lead to it. Nothing beyond a mount point is looked at,
/// and what is neither file nor directory nor symlink is only counted.
public struct ScannedTree: Sendable {
    public enum Kind: UInt8, Sendable {
        case regular, directory, symlink, hardLink
    }

    public struct Entry: Sendable {
        // In this order one takes 32 bytes.
        /// Of a regular file; of a hard link the number of the entry that it leads to.
        public internal(set) var size: Int64
        /// Nanoseconds since 1970.
        public let modified: Int64
        fileprivate(set) var directory: UInt32
        fileprivate(set) var nameStart: UInt32
        let nameLength: UInt16
        /// Of a symlink; it stands behind the name.
        let targetLength: UInt16
        /// Permission bits (07777).
        public let mode: UInt16
        public internal(set) var kind: Kind
    }

    public struct Options: Sendable {
        public var threads: Int
        /// What a restore would refuse is passed over.
        public var limits = ExtractionLimits()
        /// Whether what has this path (relative, as bytes) is left out, with all below it. Called from any thread.
        public var isExcluded: @Sendable (_ path: [UInt8], _ isDirectory: Bool) -> Bool

        public init(threads: Int, isExcluded: @escaping @Sendable ([UInt8], Bool) -> Bool = { _, _ in false }) {
            self.threads = threads
            self.isExcluded = isExcluded
        }
    }

    /// What was passed over, for a person to know.
    public struct PassedOver: Sendable, Equatable {
        /// The first hundred: path and what it is.
        public var special: [String] = []
        public var specialCount = 0
        /// Directories that another file system is mounted on; they are in the tree, empty.
        public var mountPoints: [String] = []
        /// Names that were gone when they were looked at.
        public var vanished = 0
        /// Of these the directories that were gone, or something else, before they could be read, so that nobody knows how much is
        /// missing with them; they are in the tree, empty. The first hundred.
        public var vanishedDirectories: [String] = []
        public var vanishedDirectoryCount = 0
        public var excluded = 0

        mutating func add(_ path: [UInt8], _ why: String) {
            specialCount += 1
            if special.count < 100 { special.append(Printable.text(path) + ": " + why) }
        }

        mutating func add(_ other: PassedOver) {
            special += other.special.prefix(max(0, 100 - special.count))
            specialCount += other.specialCount
            mountPoints += other.mountPoints
            vanished += other.vanished
            vanishedDirectories += other.vanishedDirectories.prefix(max(0, 100 - vanishedDirectories.count))
            vanishedDirectoryCount += other.vanishedDirectoryCount
            excluded += other.excluded
        }
    }

    private struct Directory {
        let path: [UInt8]
        var first = 0
        var count = 0
    }

    private var names: [UInt8] = []
    private var directories: [Directory] = []
    private var directoryNumbers: [[UInt8]: UInt32] = [:]
    private var entries: [Entry] = []
    private var sharedInodes: [Int: UInt64] = [:]
    public private(set) var passedOver = PassedOver()

    public var count: Int { entries.count }

    public subscript(_ index: Int) -> Entry { entries[index] }

    /// Relative to the root, as bytes: they need not be UTF-8.
    public func path(_ index: Int) -> [UInt8] {
        let entry = entries[index]
        let directory = directories[Int(entry.directory)].path
        var path: [UInt8] = []
        path.reserveCapacity(directory.count + 1 + Int(entry.nameLength))
        path += directory
        if !path.isEmpty { path.append(0x2f) }
        path += name(entry)
        return path
    }

    /// Of a file, also of one that is a hard link to an earlier one.
    public func fileSize(_ index: Int) -> Int64 {
        let entry = entries[index]
        return entry.kind == .hardLink ? entries[Int(entry.size)].size : entry.size
    }

    public func linkTarget(_ index: Int) -> [UInt8] {
        let entry = entries[index]
        let start = Int(entry.nameStart) + Int(entry.nameLength)
        return Array(names[start..<(start + Int(entry.targetLength))])
    }

    /// The inode of a file that other entries are hard links to.
    func sharedInode(_ index: Int) -> UInt64? { sharedInodes[index] }

    /// Whether a symlink's target is absolute or above the root, as no restore would make it.
    public func leadsOut(_ index: Int) -> Bool {
        ExtractionPolicy.refusal(ofTarget: linkTarget(index), from: path(index)) != nil
    }

    /// The entry of that path.
    public func index(of path: [UInt8]) -> Int? {
        let slash = path.lastIndex(of: 0x2f)
        // The root's own names have no slash before them.
        if slash == 0 { return nil }
        let parent = slash.map { Array(path[..<$0]) } ?? []
        guard let number = directoryNumbers[parent] else { return nil }
        let wanted = path[(slash.map { $0 + 1 } ?? 0)...]
        let directory = directories[Int(number)]
        var low = directory.first
        var high = directory.first + directory.count
        while low < high {
            let middle = (low + high) / 2
            let found = name(entries[middle])
            if found.elementsEqual(wanted) { return middle }
            if found.lexicographicallyPrecedes(wanted) { low = middle + 1 } else { high = middle }
        }
        return nil
    }

    private func name(_ entry: Entry) -> ArraySlice<UInt8> {
        names[Int(entry.nameStart)..<(Int(entry.nameStart) + Int(entry.nameLength))]
    }

    // MARK: The walk

    /// Walks the tree below `root` on several threads. Throws `HostError` for a directory that cannot be read: a tree with an
    /// unknown part is no tree to back up.
    public init(_ root: SourceTree, options: Options, stop: StopFlag) throws {
        let walk = Walk(root, options)
        walk.found(directory: [])
        let threads = try Workers("scan", count: options.threads, on: walk.failures) { _ in
            while let path = walk.next() {
                try stop.check()
                try walk.read(path)
                walk.done()
            }
        }
        threads.join()
        if let failure = walk.failures.firstFailure { throw failure }
        assemble(walk.takeUnordered())
        passedOver = walk.passedOver
    }

    /// One directory as it was read.
    private struct Batch {
        let path: [UInt8]
        var names: [UInt8] = []
        var entries: [Entry] = []
        /// Inodes of the regular files with several links, by the number in the batch.
        var shared: [(entry: Int, inode: UInt64)] = []
    }

    /// What all directories held, one after the other as they came.
    private struct Unordered {
        var names: [UInt8] = []
        var entries: [Entry] = []
        var directories: [(path: [UInt8], first: Int, count: Int)] = []
        var shared: [(entry: Int, inode: UInt64)] = []

        mutating func add(_ batch: Batch) {
            let base = UInt32(names.count)
            let first = entries.count
            names += batch.names
            for var entry in batch.entries {
                entry.nameStart += base
                entries.append(entry)
            }
            for (entry, inode) in batch.shared { shared.append((first + entry, inode)) }
            directories.append((batch.path, first, batch.entries.count))
        }
    }

    private final class Walk: @unchecked Sendable {
        /// Only its failure is used.
        let failures = WorkQueue<Int>(room: 1)
        private let monitor = Monitor()
        private let root: SourceTree
        private let options: Options
        private var waiting: [[UInt8]] = []
        private var open = 0
        private(set) var unordered = Unordered()
        private(set) var passedOver = PassedOver()

        init(_ root: SourceTree, _ options: Options) {
            self.root = root
            self.options = options
        }

        func found(directory path: [UInt8]) {
            monitor.locked {
                waiting.append(path)
                open += 1
                monitor.wake()
            }
        }

        func done() {
            monitor.locked {
                open -= 1
                if open == 0 { monitor.wake() }
            }
        }

        func next() -> [UInt8]? {
            monitor.locked {
                while true {
                    if failures.firstFailure != nil { return nil }
                    if let path = waiting.popLast() { return path }
                    if open == 0 { return nil }
                    monitor.wait(milliseconds: 100)
                }
            }
        }

        /// When all threads have ended.
        func takeUnordered() -> Unordered {
            defer { unordered = Unordered() }
            return unordered
        }

        func read(_ path: [UInt8]) throws {
            var passed = PassedOver()
            var batch = Batch(path: path)
            let shown = root.shown(path)
            let descriptor = root.open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW)
            if descriptor < 0 && (path.isEmpty || ![-ENOENT, -ENOTDIR, -ELOOP].contains(descriptor)) {
                throw HostError("open", shown, errno: -descriptor)
            }
            if descriptor < 0 {
                passed.vanished += 1
                passed.vanishedDirectories = [Printable.text(path)]
                passed.vanishedDirectoryCount = 1
            } else {
                defer { close(descriptor) }
                var stream = try DirectoryStream(reading: descriptor, shown: shown)
                var found: [[CChar]] = []
                while let name = try stream.next() { found.append(name) }
                found.sort { strcmp($0, $1) < 0 }
                for name in found { try add(name, of: descriptor, to: &batch, &passed) }
            }
            monitor.locked {
                unordered.add(batch)
                passedOver.add(passed)
            }
        }

        private func add(_ name: [CChar], of directory: CInt, to batch: inout Batch, _ passed: inout PassedOver) throws
        {
            let bytes = name.nameBytes
            let path = batch.path.isEmpty ? bytes : batch.path + [0x2f] + bytes
            var status = stat()
            if fstatat(directory, name, &status, AT_SYMLINK_NOFOLLOW) != 0 {
                let code = errno
                guard code == ENOENT else { throw HostError("stat", root.shown(path), errno: code) }
                passed.vanished += 1
                return
            }
            let isDirectory = status.st_mode & S_IFMT == S_IFDIR
            if options.isExcluded(path, isDirectory) {
                passed.excluded += 1
                return
            }
            guard ExtractionPolicy.isPlain(path, limits: options.limits) else {
                passed.add(path, "too deep, or its path too long, for a restore")
                return
            }
            var target: [UInt8] = []
            let kind: Kind
            switch status.st_mode & S_IFMT {
            case S_IFREG: kind = .regular
            case S_IFDIR:
                kind = .directory
                if status.st_dev == root.device && amorce_is_mount_root(directory, name) == 0 {
                    found(directory: path)
                } else {
                    passed.mountPoints.append(Printable.text(path))
                }
            case S_IFLNK:
                kind = .symlink
                guard let read = try Self.target(directory, name, shown: root.shown(path)) else {
                    passed.vanished += 1
                    return
                }
                target = read
            default:
                passed.add(path, Self.name(ofSpecial: status.st_mode))
                return
            }
            // A file may be mounted from elsewhere, and its inode's number mean another one here.
            if kind == .regular && status.st_nlink > 1 && status.st_dev == root.device {
                batch.shared.append((batch.entries.count, UInt64(status.st_ino)))
            }
            batch.entries.append(
                Entry(
                    size: kind == .regular ? Int64(status.st_size) : 0, modified: status.st_mtim.nanoseconds,
                    directory: 0, nameStart: UInt32(batch.names.count), nameLength: UInt16(bytes.count),
                    targetLength: UInt16(target.count), mode: UInt16(status.st_mode & 0o7777), kind: kind))
            batch.names += bytes
            batch.names += target
        }

        /// Nil where no symlink has that name any more.
        private static func target(
            _ directory: CInt, _ name: [CChar], shown: @autoclosure () -> String
        ) throws(HostError) -> [UInt8]? {
            var buffer = [UInt8](repeating: 0, count: 4096)
            let length = buffer.withUnsafeMutableBytes { bytes in
                bytes.baseAddress.map {
                    readlinkat(directory, name, $0.assumingMemoryBound(to: CChar.self), bytes.count)
                }
                    ?? -1
            }
            if length < 0 {
                let code = errno
                // EINVAL: it is something else by now.
                guard code == ENOENT || code == EINVAL else { throw HostError("readlink", shown(), errno: code) }
            }
            return length > 0 ? Array(buffer.prefix(length)) : nil
        }

        private static func name(ofSpecial mode: mode_t) -> String {
            switch mode & S_IFMT {
            case S_IFIFO: "a FIFO"
            case S_IFSOCK: "a socket"
            case S_IFCHR, S_IFBLK: "a device"
            default: "neither file nor directory nor symlink"
            }
        }
    }

    private mutating func assemble(_ unordered: Unordered) {
        let order = unordered.directories.indices.sorted {
            unordered.directories[$0].path.lexicographicallyPrecedes(unordered.directories[$1].path)
        }
        names = unordered.names
        entries.reserveCapacity(unordered.entries.count)
        // Where the entries of a directory begin now, by the number that it had.
        var firsts = [Int](repeating: 0, count: order.count)
        for number in order {
            let (path, first, count) = unordered.directories[number]
            firsts[number] = entries.count
            directoryNumbers[path] = UInt32(directories.count)
            for var entry in unordered.entries[first..<(first + count)] {
                entry.directory = UInt32(directories.count)
                entries.append(entry)
            }
            directories.append(Directory(path: path, first: firsts[number], count: count))
        }
        joinLinks(unordered, firsts)
    }

    private mutating func joinLinks(_ unordered: Unordered, _ firsts: [Int]) {
        var shared: [(entry: Int, inode: UInt64)] = []
        var number = 0
        // Both are in the order in which the directories were read.
        for (entry, inode) in unordered.shared {
            while entry >= unordered.directories[number].first + unordered.directories[number].count { number += 1 }
            shared.append((firsts[number] + entry - unordered.directories[number].first, inode))
        }
        var firstByInode: [UInt64: Int] = [:]
        for (entry, inode) in shared.sorted(by: { $0.entry < $1.entry }) {
            if let target = firstByInode[inode] {
                sharedInodes[target] = inode
                entries[entry].kind = .hardLink
                entries[entry].size = Int64(target)
            } else {
                firstByInode[inode] = entry
            }
        }
    }
}

/// The directory that a backup is made of, held open. Every path below it is opened from its descriptor, never through a
/// symlink (openat2(2)). Any thread may use it.
public final class SourceTree: Sendable {
    public let path: String
    private let descriptor: CInt
    let device: dev_t
    /// Nanoseconds since 1970, and permission bits, when it was opened.
    public let modified: Int64
    public let mode: UInt16

    /// Symlinks in `path` itself are followed: `current` is one.
    public init(_ path: String) throws(HostError) {
        let descriptor = amorce_openat(AT_FDCWD, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0)
        guard descriptor >= 0 else { throw HostError("open", path, errno: errno) }
        var status = stat()
        if fstat(descriptor, &status) != 0 {
            let code = errno
            close(descriptor)
            throw HostError("fstat", path, errno: code)
        }
        self.path = path
        self.descriptor = descriptor
        device = status.st_dev
        modified = status.st_mtim.nanoseconds
        mode = UInt16(status.st_mode & 0o7777)
    }

    deinit { close(descriptor) }

    /// A descriptor, or the negative errno. O_NONBLOCK: what was a file a moment ago may be a FIFO by now.
    func open(_ path: [UInt8], _ flags: CInt) -> CInt {
        TreeRoot.open(path, below: descriptor, flags | O_NONBLOCK | O_NOCTTY)
    }

    /// Whether a symlink leads out of the tree when it is followed, as a restore does once more in the complete tree.
    public func leadsOut(_ symlink: [UInt8]) -> Bool {
        let found = TreeRoot.open(symlink, below: descriptor, amorce_path_only, followingLinks: true)
        if found >= 0 { close(found) }
        return found == -EXDEV || found == -ENAMETOOLONG
    }

    func shown(_ path: [UInt8]) -> String { self.path + "/" + Printable.text(path) }
}
