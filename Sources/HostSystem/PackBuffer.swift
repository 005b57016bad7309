internal import Glibc

/// Bytes in memory that keep their room from use to use. Belongs to one thread at a time.
final class PackBuffer {
    private var storage: UnsafeMutableRawBufferPointer
    private(set) var count = 0

    init(room: Int) { storage = .allocate(byteCount: max(4096, room), alignment: 4096) }
    deinit { storage.deallocate() }

    var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(rebasing: storage.prefix(count)) }

    func removeAll() { count = 0 }

    /// Makes room for exactly so much at once, and forgets what it held.
    func removeAll(reserving size: Int) {
        count = 0
        if size <= storage.count { return }
        storage.deallocate()
        storage = .allocate(byteCount: size, alignment: 4096)
    }

    /// What it held stays; `size` more bytes follow, to be filled in by the caller.
    func extend(by size: Int) -> UnsafeMutableRawBufferPointer {
        if count + size > storage.count {
            let larger = UnsafeMutableRawBufferPointer.allocate(
                byteCount: max(count + size, storage.count * 2), alignment: 4096)
            larger.copyMemory(from: bytes)
            storage.deallocate()
            storage = larger
        }
        count += size
        return UnsafeMutableRawBufferPointer(rebasing: storage[(count - size)..<count])
    }

    func shorten(to size: Int) { count = min(count, size) }

    func append(_ bytes: UnsafeRawBufferPointer) { extend(by: bytes.count).copyMemory(from: bytes) }

    func append(_ bytes: [UInt8]) { bytes.withUnsafeBytes { append($0) } }

    func appendZeros(_ size: Int) {
        let room = extend(by: size)
        if let base = room.baseAddress { memset(base, 0, size) }
    }
}
