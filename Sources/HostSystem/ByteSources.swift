internal import CLinux
internal import Glibc
internal import Synchronization

/// A source that shows its first bytes before it hands them on.
final class HeadSource: ByteSource {
    private let source: any ByteSource
    private var gathered: UnsafeMutableRawBufferPointer?
    private var waiting: UnsafeRawBufferPointer?

    init(_ source: any ByteSource) { self.source = source }
    deinit { gathered?.deallocate() }

    /// The first bytes, at least `count` unless the source has fewer. To be called once, before the first `nextBytes`.
    func head(_ count: Int) throws -> [UInt8] {
        let first = try source.nextBytes()
        if first.count >= count || first.isEmpty {
            waiting = first
            return Array(first.prefix(count))
        }
        var bytes = Array(first)
        while bytes.count < count {
            let more = try source.nextBytes()
            if more.isEmpty { break }
            bytes.append(contentsOf: more)
        }
        let storage = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes.count, alignment: 16)
        storage.copyBytes(from: bytes)
        gathered = storage
        waiting = UnsafeRawBufferPointer(storage)
        return Array(bytes.prefix(count))
    }

    func nextBytes() throws -> UnsafeRawBufferPointer {
        if let waiting {
            self.waiting = nil
            if !waiting.isEmpty { return waiting }
        }
        return try source.nextBytes()
    }
}

/// Counts and hashes every byte that passes. One thread pulls; `count` may be read by another one.
final class HashingSource: ByteSource {
    private var source: (any ByteSource)?
    private var digest: Digest?
    private let total: PassedBytes
    /// Known when the end was reached.
    private(set) var sha256: [UInt8]?

    init(counting total: PassedBytes) {
        self.total = total
        digest = Digest(.sha256)
    }

    func begin(_ source: any ByteSource) { self.source = source }

    func nextBytes() throws -> UnsafeRawBufferPointer {
        guard let bytes = try source?.nextBytes(), !bytes.isEmpty else {
            if let digest = digest.take() { sha256 = digest.finish() }
            return UnsafeRawBufferPointer(start: nil, count: 0)
        }
        digest?.update(bytes)
        total.add(bytes.count)
        return bytes
    }
}

/// A count that one thread makes and another shows.
final class PassedBytes: Sendable {
    private let count = Atomic<Int64>(0)
    var value: Int64 { count.load(ordering: .relaxed) }
    func add(_ more: Int) { count.wrappingAdd(Int64(more), ordering: .relaxed) }
}

extension UnsafeRawBufferPointer {
    var isAllZero: Bool {
        guard let base = baseAddress, count > 0 else { return true }
        // The block equals itself shifted by one byte and begins with zero: memcmp does the comparison with vector code.
        return self[0] == 0 && memcmp(base, base + 1, count - 1) == 0
    }

    /// How many bytes at the end are zero.
    var trailingZeros: Int {
        if isAllZero { return count }
        var zeros = 0
        while zeros < count, self[count - 1 - zeros] == 0 { zeros += 1 }
        return zeros
    }
}

/// Pulls a source on a thread of its own, a bounded number of chunks ahead, so that decoding and writing files overlap. The
/// first error of the source comes out of `nextBytes` after the bytes before it. The thread is joined when the last reference
/// goes: nothing runs on after that.
final class ReadAheadSource: ByteSource {
    /// What both threads touch, only with the mutex held; a slot's bytes belong to whoever the counters say.
    private final class Shared: @unchecked Sendable {
        let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
        let changed = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)
        let slots: [UnsafeMutableRawBufferPointer]
        var filled: [Int]
        var produced = 0
        var consumed = 0
        var isClosed = false
        var isDone = false
        var failure: (any Error)?
        let source: any ByteSource

        init(_ source: any ByteSource, slots count: Int, size: Int) {
            self.source = source
            pthread_mutex_init(mutex, nil)
            pthread_cond_init(changed, nil)
            slots = (0..<count).map { _ in .allocate(byteCount: size, alignment: 4096) }
            filled = Array(repeating: 0, count: count)
        }

        deinit {
            pthread_mutex_destroy(mutex)
            pthread_cond_destroy(changed)
            mutex.deallocate()
            changed.deallocate()
            for slot in slots { slot.deallocate() }
        }

        func locked<Result>(_ body: () throws -> Result) rethrows -> Result {
            pthread_mutex_lock(mutex)
            defer { pthread_mutex_unlock(mutex) }
            return try body()
        }

        func produce() {
            do {
                while true {
                    let bytes = try source.nextBytes()
                    if bytes.isEmpty { break }
                    if !store(bytes) { return }
                }
            } catch {
                locked { failure = error }
            }
            locked {
                isDone = true
                pthread_cond_broadcast(changed)
            }
        }

        /// False when nobody wants more.
        private func store(_ bytes: UnsafeRawBufferPointer) -> Bool {
            var rest = bytes
            while !rest.isEmpty {
                let index = locked { () -> Int? in
                    while produced - consumed == slots.count && !isClosed { pthread_cond_wait(changed, mutex) }
                    return isClosed ? nil : produced % slots.count
                }
                guard let index else { return false }
                let part = UnsafeRawBufferPointer(rebasing: rest.prefix(slots[index].count))
                slots[index].copyMemory(from: part)
                rest = UnsafeRawBufferPointer(rebasing: rest.dropFirst(part.count))
                locked {
                    filled[index] = part.count
                    produced += 1
                    pthread_cond_broadcast(changed)
                }
            }
            return true
        }
    }

    private let shared: Shared
    private var thread = pthread_t()
    private var holdsSlot = false

    init(_ source: any ByteSource, slots: Int = 8, size: Int = 256 << 10) throws(HostError) {
        shared = Shared(source, slots: slots, size: size)
        let context = Unmanaged.passRetained(shared)
        let code = pthread_create(
            &thread, nil,
            { context in
                guard let context else { return nil }
                amorce_name_thread("read-ahead")
                Unmanaged<Shared>.fromOpaque(context).takeRetainedValue().produce()
                return nil
            }, context.toOpaque())
        if code != 0 {
            context.release()
            throw HostError("pthread_create", "read-ahead", errno: code)
        }
    }

    deinit {
        shared.locked {
            shared.isClosed = true
            pthread_cond_broadcast(shared.changed)
        }
        pthread_join(thread, nil)
    }

    func nextBytes() throws -> UnsafeRawBufferPointer {
        try shared.locked {
            if holdsSlot {
                holdsSlot = false
                shared.consumed += 1
                pthread_cond_broadcast(shared.changed)
            }
            while shared.produced == shared.consumed && !shared.isDone {
                pthread_cond_wait(shared.changed, shared.mutex)
            }
            if shared.produced == shared.consumed {
                if let failure = shared.failure { throw failure }
                return UnsafeRawBufferPointer(start: nil, count: 0)
            }
            holdsSlot = true
            let index = shared.consumed % shared.slots.count
            return UnsafeRawBufferPointer(rebasing: shared.slots[index].prefix(shared.filled[index]))
        }
    }
}
