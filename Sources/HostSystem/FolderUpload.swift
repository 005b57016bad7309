internal import CLinux
internal import Glibc
internal import Synchronization

/// Objects are written as `.NAME.RANDOM.part` beside their place and get their name in one step, which fails where the name
/// is taken. The folder itself must be there: making it could fill the root disk in place of one that is not mounted.
extension FolderStore: WritableStore {
    public var partRules: PartRules { PartRules(smallest: 1, largest: .max, most: .max) }

    public func beginUpload(key: String, stop: StopFlag) throws -> any ObjectUpload {
        try FolderUpload(self, key: key, stop: stop)
    }

    public func put(key: String, bytes: [UInt8], stop: StopFlag) throws {
        let upload = try FolderUpload(self, key: key, stop: stop)
        defer { upload.abort() }
        try upload.send(part: 1, bytes: bytes)
        _ = try upload.complete()
    }

    public func remove(key: String, stop: StopFlag) throws {
        try stop.check()
        let place: KeyPlace
        do {
            place = try KeyPlace(folder: folder, key: key, makesFolders: false)
        } catch Refusal.absent {
            return
        }
        if unlinkat(place.directory, place.name, 0) != 0 {
            if errno == ENOENT { return }
            throw HostError("unlink", folder + key, errno: errno)
        }
        try place.synchronize()
    }
}

/// The folder that a key's file lies in, held open: whoever renames folders meanwhile leads the writing nowhere else.
private final class KeyPlace: Sendable {
    let directory: CInt
    let name: String
    private let root: CInt
    private let parents: [String]
    private let shown: String

    /// Throws `FolderStore.Refusal` where the key is no path below the folder, or leads out of it through a symlink.
    init(folder: String, key: String, makesFolders: Bool) throws {
        let parts = key.split(separator: "/", omittingEmptySubsequences: false).map(String.init)
        shown = folder + key
        guard !parts.contains("..") else { throw FolderStore.Refusal.leavesFolder(Printable.text(shown)) }
        guard let last = parts.last, !key.utf8.contains(0), !Self.isTemporary(last),
            parts.allSatisfy({ !$0.isEmpty && $0 != "." })
        else { throw HostError("open", shown, errno: EINVAL) }
        name = last
        parents = Array(parts.dropLast())
        let root = amorce_openat(AT_FDCWD, folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0)
        if root < 0 && (errno == ENOENT || errno == ENOTDIR) {
            throw FolderStore.Refusal.absent(Printable.text(folder))
        }
        guard root >= 0 else { throw HostError("open", folder, errno: errno) }
        let above = parents.joined(separator: "/")
        do {
            var opened = Self.open(root, above)
            if opened < 0 && errno == ENOENT && makesFolders {
                try Files.makeDirectoriesBeneath(String(folder.dropLast()), above)
                opened = Self.open(root, above)
            }
            guard opened >= 0 else {
                switch errno {
                case EXDEV, ELOOP: throw FolderStore.Refusal.leavesFolder(Printable.text(shown))
                case ENOENT: throw FolderStore.Refusal.absent(Printable.text(shown))
                default: throw HostError("openat2", folder + above, errno: errno)
                }
            }
            directory = opened
        } catch {
            close(root)
            throw error
        }
        self.root = root
    }

    deinit {
        close(directory)
        close(root)
    }

    private static func open(_ root: CInt, _ path: String) -> CInt {
        amorce_openat2(
            root, path.isEmpty ? "." : path, UInt64(O_RDONLY | O_DIRECTORY | O_CLOEXEC), 0,
            amorce_resolve_beneath | amorce_resolve_no_magiclinks)
    }

    var isTaken: Bool {
        var raw = stat()
        return fstatat(directory, name, &raw, AT_SYMLINK_NOFOLLOW) == 0
    }

    /// The name is on disk when this returns, and so are those of the folders that were made for it.
    func synchronize() throws(HostError) {
        if fsync(directory) != 0 { throw HostError("fsync", shown, errno: errno) }
        for depth in 0..<parents.count {
            let folder = Self.open(root, parents.prefix(depth).joined(separator: "/"))
            guard folder >= 0 else { throw HostError("open", shown, errno: errno) }
            defer { close(folder) }
            if fsync(folder) != 0 { throw HostError("fsync", shown, errno: errno) }
        }
    }

    /// A new file that only its owner can read: a backup holds what the application keeps secret.
    func makeTemporary() throws(HostError) -> Temporary {
        var kept = name
        // With what is added, a name stays within the 255 bytes of a file name.
        while kept.utf8.count > 200 { kept.removeLast() }
        let temporary = ".\(kept).\(Host.randomHex(bytes: 8)).part"
        let descriptor = amorce_openat(
            directory, temporary, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw HostError("open", shown, errno: errno) }
        return Temporary(descriptor: descriptor, name: temporary)
    }

    func remove(_ temporary: Temporary) { unlinkat(directory, temporary.name, 0) }

    /// Gives the file the key's name, unless something has it. Returns false where it is taken.
    func publish(_ temporary: Temporary) throws(HostError) -> Bool {
        if amorce_rename_new(directory, temporary.name, name) == 0 { return true }
        switch errno {
        case EEXIST: return false
        // NFS, and others, know no RENAME_NOREPLACE; link(2) refuses a taken name everywhere.
        case EINVAL, ENOSYS, EOPNOTSUPP: break
        default: throw HostError("rename", shown, errno: errno)
        }
        if linkat(directory, temporary.name, directory, name, 0) != 0 {
            if errno == EEXIST { return false }
            throw HostError("link", shown, errno: errno)
        }
        remove(temporary)
        return true
    }

    /// Removes what killed runs left, once it has not been written to for a day.
    func removeLeftovers() {
        guard var stream = try? DirectoryStream(reading: directory, shown: shown) else { return }
        let limit = Host.now - 86_400
        while let entry = try? stream.next() {
            var raw = stat()
            guard Self.isTemporary(String(decoding: entry.nameBytes, as: UTF8.self)),
                fstatat(directory, entry, &raw, AT_SYMLINK_NOFOLLOW) == 0, raw.st_mode & S_IFMT == S_IFREG,
                Int64(raw.st_mtim.tv_sec) < limit
            else { continue }
            unlinkat(directory, entry, 0)
        }
    }

    static func isTemporary(_ name: String) -> Bool {
        let parts = name.split(separator: ".", omittingEmptySubsequences: false)
        guard parts.count >= 4, parts[0].isEmpty, parts[parts.count - 1] == "part" else { return false }
        let random = parts[parts.count - 2]
        return random.utf8.count == 16 && [UInt8](hex: random) != nil
    }
}

extension FolderStore {
    /// Whether a file is one that is still being written, or was when its run was killed.
    static func isUnfinished(_ name: String) -> Bool { KeyPlace.isTemporary(name) }
}

private struct Temporary: Sendable {
    let descriptor: CInt
    let name: String
}

/// One file on its way. A part lies at the sum of the lengths before it; one that comes before these are known waits in a
/// file of its own, and whoever makes them known puts it in its place. So nobody ever waits for another thread.
///
/// Safe from any thread. The descriptors are closed when nobody can write any more: with the last reference.
private final class FolderUpload: ObjectUpload {
    private struct State {
        var lengths: [Int: Int64] = [:]
        /// Where the parts before `next` lie, and where `next` will.
        var offsets: [Int: Int64] = [:]
        var next = 1
        var end: Int64 = 0
        var written: Set<Int> = []
        var waiting: [Int: Temporary] = [:]
        var isEnded = false
    }

    private let store: FolderStore
    private let key: String
    private let place: KeyPlace
    private let file: Temporary
    private let stop: StopFlag
    private let state = Mutex(State())

    init(_ store: FolderStore, key: String, stop: StopFlag) throws {
        try stop.check()
        self.store = store
        self.key = key
        self.stop = stop
        place = try KeyPlace(folder: store.folder, key: key, makesFolders: true)
        guard !place.isTaken else { throw StoreConflict(object: store.url(key)) }
        place.removeLeftovers()
        file = try place.makeTemporary()
    }

    deinit {
        abort()
        close(file.descriptor)
    }

    func send(part: Int, bytes: [UInt8]) throws {
        try put(part, length: Int64(bytes.count)) { descriptor, offset in
            try bytes.withUnsafeBytes { try write($0, to: descriptor, at: offset) }
        }
    }

    func copy(part: Int, from object: StoredObject, range: Range<Int64>) throws {
        let gone = CopySourceGone(object: store.url(object.key))
        let source: OpenFile
        do {
            source = try store.pinned(object)
        } catch is FolderStore.Refusal {
            throw gone
        }
        let present = source.object(key: object.key)
        guard range.lowerBound >= 0, range.upperBound <= present.size ?? 0 else { throw gone }
        try put(part, length: range.upperBound - range.lowerBound) { descriptor, offset in
            let count = try copy(source.descriptor, range, to: descriptor, at: offset)
            // Cut or written to while it was read.
            guard count == range.upperBound - range.lowerBound,
                source.object(key: object.key).version == present.version
            else { throw gone }
        }
    }

    func complete() throws -> StoredObject {
        try stop.check()
        let missing = try state.withLock { state throws(UploadError) in
            if state.isEnded { throw .closed(object: store.url(key)) }
            let count = max(1, state.lengths.keys.max() ?? 1)
            if state.written.count != count { return (1...count).first { !state.written.contains($0) } }
            // From here on nothing may be written to the file, and `abort` must leave it alone.
            state.isEnded = true
            return nil
        }
        if let missing { throw UploadError.missingPart(object: store.url(key), part: missing) }
        do {
            if fsync(file.descriptor) != 0 {
                let code = errno
                // The kernel tells of a lost page once: the next fsync would say that all is well.
                state.withLock { $0.written = [] }
                throw HostError("fsync", store.folder + key, errno: code)
            }
            guard try place.publish(file) else { throw StoreConflict(object: store.url(key)) }
        } catch {
            state.withLock { $0.isEnded = false }
            throw error
        }
        try place.synchronize()
        var raw = stat()
        if fstat(file.descriptor, &raw) != 0 { throw HostError("stat", store.folder + key, errno: errno) }
        return OpenFile.object(key: key, FileStatus(raw))
    }

    func abort() {
        let waiting = state.withLock { state -> [Temporary]? in
            if state.isEnded { return nil }
            state.isEnded = true
            defer { state.waiting = [:] }
            return Array(state.waiting.values)
        }
        guard let waiting else { return }
        place.remove(file)
        for temporary in waiting { discard(temporary) }
        // The blocks are free at once, though the descriptor stays. A thread that still writes stops at its next piece.
        ftruncate(file.descriptor, 0)
    }

    // MARK: parts

    private func put(_ part: Int, length: Int64, write: (CInt, Int64) throws -> Void) throws {
        let offset = try announce(part, length)
        if let offset {
            try write(file.descriptor, offset)
            state.withLock { _ = $0.written.insert(part) }
        } else {
            let temporary = try place.makeTemporary()
            do {
                try write(temporary.descriptor, 0)
            } catch {
                discard(temporary)
                throw error
            }
            let useless = state.withLock { state in
                // Of an ended upload, or of an earlier sending of the same part.
                state.isEnded ? temporary : state.waiting.updateValue(temporary, forKey: part)
            }
            if let useless { discard(useless) }
        }
        try settle()
    }

    /// Notes a part's length. Returns where it lies, or nil where a part before it is not announced yet.
    private func announce(_ part: Int, _ length: Int64) throws -> Int64? {
        try stop.check()
        return try state.withLock { state throws(UploadError) in
            if state.isEnded { throw .closed(object: store.url(key)) }
            guard part >= 1 else { throw .outsideRules(object: store.url(key), part: part, length: length) }
            if part < state.next && state.lengths[part] != length {
                throw .otherLength(object: store.url(key), part: part)
            }
            state.lengths[part] = length
            state.written.remove(part)
            while let next = state.lengths[state.next] {
                state.offsets[state.next] = state.end
                state.end += next
                state.next += 1
            }
            return state.offsets[part]
        }
    }

    /// Puts the waiting parts whose place is known by now in it.
    private func settle() throws {
        while true {
            let ready = state.withLock { state -> (part: Int, offset: Int64, length: Int64, Temporary)? in
                guard let part = state.waiting.keys.first(where: { $0 < state.next }),
                    let offset = state.offsets[part], let length = state.lengths[part],
                    let temporary = state.waiting.removeValue(forKey: part)
                else { return nil }
                return (part, offset, length, temporary)
            }
            guard let (part, offset, length, temporary) = ready else { return }
            defer { discard(temporary) }
            guard try copy(temporary.descriptor, 0..<length, to: file.descriptor, at: offset) == length else {
                throw HostError("read", store.folder + key, errno: EIO)
            }
            state.withLock { _ = $0.written.insert(part) }
        }
    }

    private func discard(_ temporary: Temporary) {
        place.remove(temporary)
        close(temporary.descriptor)
    }

    /// Between pieces of a long transfer.
    private func check() throws {
        try stop.check()
        if state.withLock({ $0.isEnded }) { throw UploadError.closed(object: store.url(key)) }
    }

    // MARK: bytes

    private static let piece = 8 << 20

    private func write(_ bytes: UnsafeRawBufferPointer, to descriptor: CInt, at offset: Int64) throws {
        var done = 0
        while done < bytes.count {
            try check()
            let count = min(Self.piece, bytes.count - done)
            try Files.write(
                UnsafeRawBufferPointer(rebasing: bytes[done..<(done + count)]), to: descriptor,
                at: offset + Int64(done), shown: store.folder + key)
            done += count
        }
    }

    /// Within the kernel where the file systems can, by which some of them share blocks in place of copying them. Returns how
    /// many bytes there were.
    private func copy(_ source: CInt, _ range: Range<Int64>, to descriptor: CInt, at offset: Int64) throws -> Int64 {
        var position = range.lowerBound
        while position < range.upperBound {
            try check()
            let count = amorce_copy_range_at(
                descriptor, offset + position - range.lowerBound, source, position,
                Int(min(Int64(Self.piece), range.upperBound - position)))
            if count > 0 {
                position += Int64(count)
                continue
            }
            if count < 0 && errno == EINTR { continue }
            // Two file systems, or one without it; some say 0 in place of an error. read(2) then tells the end.
            if count == 0 || errno == EXDEV || errno == EINVAL || errno == EOPNOTSUPP || errno == ENOSYS {
                return position - range.lowerBound
                    + (try copyByHand(
                        source, position..<range.upperBound, to: descriptor, at: offset + position - range.lowerBound))
            }
            throw HostError("copy_file_range", store.folder + key, errno: errno)
        }
        return position - range.lowerBound
    }

    private func copyByHand(_ source: CInt, _ range: Range<Int64>, to descriptor: CInt, at offset: Int64) throws
        -> Int64
    {
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 4096)
        defer { buffer.deallocate() }
        var position = range.lowerBound
        while position < range.upperBound {
            let room = UnsafeMutableRawBufferPointer(
                rebasing: buffer.prefix(Int(min(Int64(buffer.count), range.upperBound - position))))
            let count = try Files.read(source, into: room, at: position, shown: store.folder + key)
            if count == 0 { break }
            try write(
                UnsafeRawBufferPointer(rebasing: buffer[..<count]), to: descriptor,
                at: offset + position - range.lowerBound)
            position += Int64(count)
        }
        return position - range.lowerBound
    }
}
