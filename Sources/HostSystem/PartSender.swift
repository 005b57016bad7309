/// Sends the parts of one upload from several threads. The first failure ends it. One thread calls it.
public final class PartSender {
    public enum Part: Sendable {
        case send(number: Int, bytes: [UInt8])
        case copy(number: Int, object: StoredObject, range: Range<Int64>)
    }

    private let queue: WorkQueue<Part>
    private let workers: Workers
    private var isJoined = false

    public init(_ upload: any ObjectUpload, connections: Int) throws(HostError) {
        let queue = WorkQueue<Part>(room: 1)
        self.queue = queue
        workers = try Workers("upload", count: connections, on: queue) { _ in
            while let part = queue.take() {
                switch part {
                case .send(let number, let bytes): try upload.send(part: number, bytes: bytes)
                case .copy(let number, let object, let range):
                    try upload.copy(part: number, from: object, range: range)
                }
            }
        }
    }

    deinit { if !isJoined { abandon(StopReason.signal(0)) } }

    /// Waits until a thread is free for it. Throws the first failure of any part, or `StopReason`.
    public func put(_ part: Part, stop: StopFlag) throws { try queue.put(part, stop: stop) }

    /// Waits until every part is sent. Throws the first failure.
    public func finish() throws {
        queue.finish()
        join()
        if let failure = queue.firstFailure { throw failure }
    }

    /// Sends nothing more, and waits for what is on its way.
    public func abandon(_ error: any Error) {
        queue.fail(error)
        join()
    }

    private func join() {
        if isJoined { return }
        isJoined = true
        workers.join()
    }
}
