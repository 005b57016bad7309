internal import CLinux
internal import Glibc

/// Objects that are the regular files below one folder: the store that needs nothing installed.
///
/// A symlink is followed as long as it stays below the folder (`latest.tar.zst` beside the backups); one that leads out
/// of it is refused, as is whatever is no regular file. The pin is the file itself (device, inode, time of change and
/// size), looked at when it is opened and again after its last byte.
public struct FolderStore: ObjectStore {
    public enum Refusal: Error, Sendable, Equatable, CustomStringConvertible {
        /// Removed, or never there.
        case absent(String)
        /// Another file than the pinned one, or changed while it was read.
        case replaced(String)
        case leavesFolder(String)
        case notRegular(String)
        case tooLarge(String, limit: Int)

        public var description: String {
            switch self {
            case .absent(let path): "\(path): no such file"
            case .replaced(let path): "\(path): changed since it was chosen"
            case .leavesFolder(let path): "\(path): leads out of the folder"
            case .notRegular(let path): "\(path): no regular file"
            case .tooLarge(let path, let limit): "\(path): larger than \(ByteCount(limit))"
            }
        }
    }

    /// With its trailing slash.
    let folder: String

    /// An absolute path, with or without a trailing slash.
    public init(folder: String) { self.folder = folder.hasSuffix("/") ? folder : folder + "/" }

    public var location: String { "file://" + Printable.text(folder) }

    public func list(prefix: String, stop: StopFlag) throws -> [StoredObject] {
        guard let status = try Files.status(folder, followingLinks: true), status.kind == .directory else {
            throw Refusal.absent(shown(""))
        }
        var found: [StoredObject] = []
        // Folders still to be read, as keys with their slash. No recursion: a folder may be as deep as a path is long.
        var folders = [""]
        while let current = folders.popLast() {
            try stop.check()
            for name in try Files.names(in: folder + current) {
                let key = current + name
                if Self.isUnfinished(name) { continue }
                guard let status = try Files.status(folder + key) else { continue }
                if status.kind == .directory {
                    if (key + "/").hasPrefix(prefix) || prefix.hasPrefix(key + "/") { folders.append(key + "/") }
                } else if key.hasPrefix(prefix) {
                    do {
                        if let object = try stat(key: key, stop: stop) { found.append(object) }
                    } catch is Refusal {
                        // No object of this store. What cannot be looked at may be one, and must not pass for absent.
                    }
                }
            }
        }
        return found
    }

    public func stat(key: String, stop: StopFlag) throws -> StoredObject? {
        do {
            let file = try OpenFile(folder: folder, key: key)
            return file.object(key: key)
        } catch Refusal.absent {
            return nil
        }
    }

    public func read(key: String, limit: Int, stop: StopFlag) throws -> [UInt8]? {
        guard let object = try stat(key: key, stop: stop) else { return nil }
        guard let size = object.size, size <= Int64(limit) else { throw Refusal.tooLarge(shown(key), limit: limit) }
        let source = try open(object, memory: ByteCount(1 << 20), stop: stop) { _ in }
        var bytes: [UInt8] = []
        while true {
            let more = try source.nextBytes()
            if more.isEmpty { return bytes }
            bytes.append(contentsOf: more)
        }
    }

    public func open(
        _ object: StoredObject, from offset: Int64, memory: ByteCount, stop: StopFlag,
        progress: @escaping ProgressHandler
    ) throws -> any ByteSource {
        let file = try pinned(object)
        return FileSource(
            file, object: file.object(key: object.key), from: offset, memory: memory, stop: stop, progress: progress,
            shown: shown(object.key))
    }

    /// The file of the pinned object, opened. Throws `Refusal` where it is another one by now.
    func pinned(_ object: StoredObject) throws -> OpenFile {
        let file = try OpenFile(folder: folder, key: object.key)
        let present = file.object(key: object.key)
        // A pin without a version (a test, a manifest) is held by size and time.
        guard object.version.map({ $0 == present.version }) ?? (object.size == nil || object.size == present.size)
        else {
            throw Refusal.replaced(shown(object.key))
        }
        return file
    }

    func url(_ key: String) -> String { location + Printable.text(key) }

    func shown(_ key: String) -> String { Printable.text(folder + key) }
}

/// A descriptor of a regular file below a folder, closed with its last reference. Belongs to one thread.
final class OpenFile {
    let descriptor: CInt

    init(folder: String, key: String) throws {
        let shown = Printable.text(folder + key)
        guard !key.isEmpty, !key.utf8.contains(0) else { throw FolderStore.Refusal.absent(shown) }
        let root = amorce_openat(AT_FDCWD, folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0)
        if root < 0 && (errno == ENOENT || errno == ENOTDIR) { throw FolderStore.Refusal.absent(shown) }
        guard root >= 0 else { throw HostError("open", folder, errno: errno) }
        defer { close(root) }
        // O_NONBLOCK: opening a FIFO must not wait for its writer. It changes nothing for a regular file.
        let flags = UInt64(O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY)
        descriptor = amorce_openat2(root, key, flags, 0, amorce_resolve_beneath | amorce_resolve_no_magiclinks)
        guard descriptor >= 0 else {
            switch errno {
            case ENOENT, ENOTDIR: throw FolderStore.Refusal.absent(shown)
            case EXDEV, ELOOP: throw FolderStore.Refusal.leavesFolder(shown)
            // A socket, or a FIFO or device without its other side.
            case ENXIO, ENODEV: throw FolderStore.Refusal.notRegular(shown)
            default: throw HostError("openat2", folder + key, errno: errno)
            }
        }
        var raw = Glibc.stat()
        if fstat(descriptor, &raw) != 0 { throw HostError("fstat", folder + key, errno: errno) }
        guard FileStatus(raw).kind == .regular else { throw FolderStore.Refusal.notRegular(shown) }
    }

    deinit { if descriptor >= 0 { close(descriptor) } }

    var status: FileStatus? {
        var raw = Glibc.stat()
        return fstat(descriptor, &raw) == 0 ? FileStatus(raw) : nil
    }

    func object(key: String) -> StoredObject { Self.object(key: key, status) }

    static func object(key: String, _ status: FileStatus?) -> StoredObject {
        let pin = status.map { "\($0.device)-\($0.inode)-\($0.modified)-\($0.size)" }
        return StoredObject(
            key: key, size: status?.size, modified: status.map { $0.modified / 1_000_000_000 }, version: pin)
    }
}

private final class FileSource: ByteSource {
    private let file: OpenFile
    private let object: StoredObject
    private let buffer: UnsafeMutableRawBufferPointer
    private var position: Int64
    private let start: Int64
    private let stop: StopFlag
    private let progress: ProgressHandler
    private let shown: String

    init(
        _ file: OpenFile, object: StoredObject, from offset: Int64, memory: ByteCount, stop: StopFlag,
        progress: @escaping ProgressHandler, shown: String
    ) {
        self.file = file
        self.object = object
        position = offset
        start = offset
        self.stop = stop
        self.progress = progress
        self.shown = shown
        let room = max(64 << 10, min(1 << 20, Int(clamping: memory.value)))
        buffer = .allocate(byteCount: room, alignment: 4096)
    }

    deinit { buffer.deallocate() }

    func nextBytes() throws -> UnsafeRawBufferPointer {
        try stop.check()
        while true {
            let count = pread(file.descriptor, buffer.baseAddress, buffer.count, off_t(position))
            if count < 0 && errno == EINTR { continue }
            guard count >= 0 else { throw HostError("read", shown, errno: errno) }
            let size = object.size ?? 0
            if count == 0 {
                // The end is the end of the pinned file only if it still is that file.
                guard position == max(size, start), file.object(key: object.key).version == object.version else {
                    throw FolderStore.Refusal.replaced(shown)
                }
            }
            position += Int64(count)
            guard position <= max(size, start) else { throw FolderStore.Refusal.replaced(shown) }
            progress(Progress(bytes: position - start, totalBytes: size - start))
            return UnsafeRawBufferPointer(rebasing: buffer[..<count])
        }
    }
}
