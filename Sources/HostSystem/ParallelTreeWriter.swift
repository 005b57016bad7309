internal import Glibc

/// Makes the members of an archive on several threads, in an order that gives the same tree as one thread would: members of one
/// directory are made by one thread, in their order, which is also what file systems like best; a hard link, and a file too large
/// to be kept in memory, waits until all before it are made. One thread gives it members.
final class ParallelTreeWriter {
    /// Larger files are written by the calling thread as their bytes come.
    private static let largestInMemory: Int64 = 1 << 20
    private static let batchBytes = 256 << 10
    private static let batchMembers = 256

    private struct Item {
        let member: ExtractionPolicy.Member
        let modified: (seconds: Int64, nanoseconds: Int)?
        let pieces: [Piece]
        let size: Int64
    }

    /// Where a part of a file's contents lies in the batch, and in the file.
    private struct Piece {
        let start: Int
        let count: Int
        let offset: Int64
    }

    private final class Batch {
        var items: [Item] = []
        let bytes = PackBuffer(room: ParallelTreeWriter.batchBytes * 2)
    }

    /// What the threads share. The batches that are not worked off yet are counted, so that it can be waited for.
    private final class Shared: @unchecked Sendable {
        let monitor = Monitor()
        var pending = 0
        var files = 0
        var links = 0
        var directoryCount = 0
        var symlinks: [[UInt8]] = []
        var directories: [TreeWriter.Directory] = []
        var spare: [Batch] = []
    }

    private let root: TreeRoot
    private let shared = Shared()
    private let queues: [WorkQueue<Batch>]
    private let workers: [Workers]
    private var batches: [Batch?]
    private var own: TreeWriter
    private var isJoined = false

    init(_ root: TreeRoot, replacesEarlier: Bool, threads: Int) throws(HostError) {
        self.root = root
        own = TreeWriter(root, replacesEarlier: replacesEarlier)
        var queues: [WorkQueue<Batch>] = []
        var workers: [Workers] = []
        do throws(HostError) {
            for number in 0..<max(1, threads) {
                let queue = WorkQueue<Batch>(room: 3)
                let shared = shared
                workers.append(
                    try Workers("write-\(number)", count: 1, on: queue) { _ in
                        try Self.work(queue, root, replacesEarlier, shared)
                    })
                queues.append(queue)
            }
        } catch {
            for queue in queues { queue.finish() }
            for worker in workers { worker.join() }
            throw error
        }
        self.queues = queues
        self.workers = workers
        batches = Array(repeating: nil, count: queues.count)
    }

    deinit {
        for queue in queues { queue.fail(StopReason.signal(0)) }
        join()
    }

    private func join() {
        if isJoined { return }
        isJoined = true
        for worker in workers { worker.join() }
    }

    var files: Int { shared.monitor.locked { shared.files } + own.files }
    var links: Int { shared.links + own.links }
    var directoryCount: Int { shared.directoryCount + own.directoryCount }

    /// As `TreeWriter.make`; what goes wrong on another thread is thrown here or by a later call.
    func make(
        _ member: ExtractionPolicy.Member, size: Int64, modified: (seconds: Int64, nanoseconds: Int)?, stop: StopFlag,
        contents: ((Int64, UnsafeRawBufferPointer) throws -> Void) throws -> Void
    ) throws {
        var needsAll = size > Self.largestInMemory
        if case .hardLink = member.kind { needsAll = true }
        if needsAll {
            try settle(stop: stop)
            return try own.make(member, size: size, modified: modified, contents: contents)
        }
        let parent = member.path.lastIndex(of: 0x2f).map { member.path[..<$0] } ?? []
        // FNV-1a: the same directory, the same thread.
        let hash = parent.reduce(UInt32(2_166_136_261)) { ($0 ^ UInt32($1)) &* 16_777_619 }
        let number = Int(hash % UInt32(queues.count))
        let batch = batches[number] ?? takeBatch()
        batches[number] = batch
        var pieces: [Piece] = []
        if member.kind == .regular {
            try contents { offset, bytes in
                // A member that is not as large as it says is found out when it is written.
                guard bytes.count <= 2 * Self.largestInMemory else {
                    throw ArchiveError.damaged(
                        "the contents do not lie within the stated size", entry: Printable.text(member.path))
                }
                pieces.append(Piece(start: batch.bytes.count, count: bytes.count, offset: offset))
                batch.bytes.append(bytes)
            }
        }
        batch.items.append(Item(member: member, modified: modified, pieces: pieces, size: size))
        if batch.bytes.count >= Self.batchBytes || batch.items.count >= Self.batchMembers {
            try send(number, stop: stop)
        }
    }

    private func takeBatch() -> Batch { shared.monitor.locked { shared.spare.popLast() } ?? Batch() }

    private func send(_ number: Int, stop: StopFlag) throws {
        guard let batch = batches[number] else { return }
        batches[number] = nil
        shared.monitor.locked { shared.pending += 1 }
        try queues[number].put(batch, stop: stop)
    }

    /// Waits until everything so far is made. Throws the first failure.
    private func settle(stop: StopFlag) throws {
        for number in queues.indices { try send(number, stop: stop) }
        try shared.monitor.locked {
            while shared.pending > 0 {
                try stop.check()
                for queue in queues { if let failure = queue.firstFailure { throw failure } }
                shared.monitor.wait(milliseconds: 50)
            }
        }
    }

    /// As `TreeWriter.finish`.
    func finish(stop: StopFlag) throws {
        for number in queues.indices { try send(number, stop: stop) }
        for queue in queues { queue.finish() }
        join()
        for queue in queues { if let failure = queue.firstFailure { throw failure } }
        try TreeWriter.settle(
            root, symlinks: shared.symlinks + own.symlinks, directories: shared.directories + own.directories,
            stop: stop)
        try root.synchronize()
    }

    private static func work(
        _ queue: WorkQueue<Batch>, _ root: TreeRoot, _ replacesEarlier: Bool, _ shared: Shared
    ) throws {
        let ownsUmask = root.takeOwnUmask()
        var writer = TreeWriter(root, replacesEarlier: replacesEarlier, lostModeBits: ownsUmask ? 0 : nil)
        var reported = 0
        while let batch = queue.take() {
            for item in batch.items {
                try writer.make(item.member, size: item.size, modified: item.modified) { body in
                    for piece in item.pieces {
                        try body(
                            piece.offset,
                            UnsafeRawBufferPointer(
                                rebasing: batch.bytes.bytes[piece.start..<(piece.start + piece.count)]))
                    }
                }
            }
            batch.items.removeAll(keepingCapacity: true)
            batch.bytes.removeAll()
            let files = writer.files
            shared.monitor.locked {
                shared.files += files - reported
                shared.pending -= 1
                shared.spare.append(batch)
                shared.monitor.wake()
            }
            reported = files
        }
        let (symlinks, directories, links, made) = (
            writer.symlinks, writer.directories, writer.links, writer.directoryCount
        )
        shared.monitor.locked {
            shared.symlinks += symlinks
            shared.directories += directories
            shared.links += links
            shared.directoryCount += made
        }
    }
}
