internal import CCurl
internal import Glibc

/// How the bytes of one object are asked for, and what an answer means. The closures are called on the download's own
/// thread.
public struct RangeSource: Sendable {
    public enum Verdict: Sendable {
        /// The status and the pin are right: the body is what was asked for.
        case accept
        /// Something that the next request will do better was learnt (a region, fresh credentials): at once, a few
        /// times.
        case again
        /// The server says "later". `error` is what is thrown when the tries are used up.
        case later(after: Duration?, error: any Error)
        case fail(any Error)
    }

    /// One request, ready to be sent, and the judge of its answer. Good answers (2xx) are judged before their body is
    /// taken, others with up to 64 KiB of it.
    public struct Attempt: Sendable {
        public var request: HTTPRequest
        public var judge: @Sendable (HTTPResponse) -> Verdict

        public init(request: HTTPRequest, judge: @escaping @Sendable (HTTPResponse) -> Verdict) {
            self.request = request
            self.judge = judge
        }
    }

    /// For messages; never holds a secret.
    public var name: String
    /// Whether every request demands the same state of the object. Without that, ranges of two states could be put
    /// together: the object then comes in one stream, and a break after the first byte is final.
    public var isPinned: Bool
    /// A request for these bytes (an upper bound of `Int64.max` means "to the end"), or for all of them.
    public var attempt: @Sendable (Range<Int64>?) throws -> Attempt
    /// Puts a missing answer in the words of the store.
    public var wrap: @Sendable (HTTPFailure) -> any Error

    public init(
        name: String, isPinned: Bool, attempt: @escaping @Sendable (Range<Int64>?) throws -> Attempt,
        wrap: @escaping @Sendable (HTTPFailure) -> any Error = { $0 }
    ) {
        self.name = name
        self.isPinned = isPinned
        self.attempt = attempt
        self.wrap = wrap
    }

    /// The value of a Range header (RFC 9110, section 14.2).
    public static func header(_ range: Range<Int64>) -> String {
        "bytes=\(range.lowerBound)-" + (range.upperBound == .max ? "" : String(range.upperBound - 1))
    }
}

/// An answer that cannot be the bytes that were asked for. None of these is cured by asking again.
public enum TransferError: Error, Sendable, Equatable, CustomStringConvertible {
    case wrongRange(object: String, asked: String, got: String)
    case wrongLength(object: String, expected: Int64, got: Int64)
    /// More bytes than were asked for.
    case tooLong(object: String)
    /// The server knows no ranges, and bytes were already handed on: starting again would splice two answers.
    case cannotResume(object: String)
    /// Neither a length nor chunks: a cut could not be told from the end.
    case noLength(object: String)
    case unexpectedStatus(object: String, status: Int)
    case closed(object: String)

    public var description: String {
        switch self {
        case .wrongRange(let object, let asked, let got): "\(object): asked for \(asked), got \(Printable.text(got))"
        case .wrongLength(let object, let expected, let got): "\(object): \(got) bytes in place of \(expected)"
        case .tooLong(let object): "\(object): the server sent more bytes than were asked for"
        case .cannotResume(let object): "\(object): the transfer broke, and the server cannot continue one"
        case .noLength(let object): "\(object): the server tells no length, so a cut could not be noticed"
        case .unexpectedStatus(let object, let status): "\(object): unexpected status \(status)"
        case .closed(let object): "\(object): the download is closed"
        }
    }
}

/// A Content-Range header (RFC 9110, section 14.4): `bytes 0-499/1234`.
struct ContentRange: Equatable {
    let range: Range<Int64>
    let total: Int64

    init?(_ text: String) {
        let words = text.split(separator: " ")
        guard words.count == 2, words[0].lowercased() == "bytes" else { return nil }
        let halves = words[1].split(separator: "/", omittingEmptySubsequences: false)
        guard halves.count == 2, let total = Int64(halves[1]), total >= 0 else { return nil }
        let ends = halves[0].split(separator: "-", omittingEmptySubsequences: false)
        guard ends.count == 2, let first = Int64(ends[0]), let last = Int64(ends[1]), first >= 0, first <= last,
            last < total
        else { return nil }
        range = first..<last + 1
        self.total = total
    }
}

/// The bytes of one pinned object in order, from several ranged requests in flight at once.
///
/// One thread of its own drives all connections. They fill a bounded window of buffers, which together stay within
/// `memory`; the reader gets the bytes in order, the first part already while it is still coming in. A break is
/// continued at the byte that was reached, with a fresh request. The first error wins: the reader sees it at its next
/// call, and the thread ends. `nextBytes` belongs to one thread. `close`, or the last reference going away, ends and
/// joins the thread.
public final class RangedDownload: ByteSource {
    public static let smallestPart = 64 << 10
    static let largestPart = 16 << 20

    private let engine: DownloadEngine
    private var thread: WorkerThread?
    private let progress: ProgressHandler
    private let stop: StopFlag
    private let total: Int64?

    /// `size` is the whole object's where it is known; without it the object comes in one stream. Begins at once.
    public init(
        _ source: RangeSource, size: Int64?, from offset: Int64 = 0, connections: Int = 8, memory: ByteCount,
        retry: RetryPolicy = RetryPolicy(), userAgent: String = "amorce",
        environment: [String: String] = Host.environment(), stop: StopFlag,
        progress: @escaping ProgressHandler = { _ in }
    ) throws {
        if let size, offset > size { throw TransferError.wrongLength(object: source.name, expected: offset, got: size) }
        let room = max(Self.smallestPart * 2, Int(clamping: memory.value))
        // One part is with the reader, one is ready for it, the others come in.
        let slots = min(max(1, connections) + 2, room / Self.smallestPart)
        let part = min(Self.largestPart, room / slots & ~4095)
        engine = DownloadEngine(
            source, size: size, offset: offset, connections: max(1, min(connections, slots - 1)), slots: slots,
            part: part,
            retry: retry, settings: CurlSettings(userAgent: userAgent, environment: environment), stop: stop)
        self.progress = progress
        self.stop = stop
        total = size.map { $0 - offset }
        thread = try WorkerThread("amorce-fetch") { [engine] in engine.run() }
    }

    public func nextBytes() throws -> UnsafeRawBufferPointer {
        let (bytes, delivered) = try engine.next()
        progress(Progress(bytes: delivered, totalBytes: total))
        return bytes
    }

    public func close() {
        engine.close()
        thread?.join()
        thread = nil
        engine.freeBuffers()
    }

    deinit { close() }
}

/// The state that the reader and the download thread share, and the loop of that thread.
///
/// `@unchecked Sendable`: the fields below "shared" are touched only inside `monitor`; those below "thread" only by
/// `run`; the bytes of a buffer beyond a part's `filled` only by the thread, those before `taken` only by the reader.
private final class DownloadEngine: @unchecked Sendable {
    /// What is retried as one: a part, or the stream.
    class Work {
        var failures = 0
        var repeats = 0
        var retryAt: ContinuousClock.Instant?
        var isRunning = false
    }

    final class Part: Work {
        let start: Int64
        let length: Int
        let buffer: UnsafeMutableRawPointer
        var filled = 0
        var taken = 0
        /// No more bytes will come: `filled` is its end.
        var isComplete = false

        init(start: Int64, length: Int, buffer: UnsafeMutableRawPointer) {
            self.start = start
            self.length = length
            self.buffer = buffer
        }
    }

    /// The whole object in one answer after the other.
    final class Stream: Work {
        /// The next byte of the object that will come in.
        var position: Int64
        /// Bytes before this one are not handed on.
        let first: Int64
        var canContinue: Bool
        init(position: Int64, first: Int64, canContinue: Bool) {
            self.position = position
            self.first = first
            self.canContinue = canContinue
        }
    }

    let monitor = Monitor()
    private let source: RangeSource
    private let offset: Int64
    private let connections: Int
    private let slots: Int
    private let partSize: Int
    private let retry: RetryPolicy
    private let settings: CurlSettings
    private let stop: StopFlag

    // shared
    private var window: [Part] = []
    private var free: [UnsafeMutableRawPointer] = []
    private var allocated: [UnsafeMutableRawPointer] = []
    private var failure: (any Error)?
    private var isClosed = false
    private var isFinished = false
    private var isReaderWaiting = false
    private var delivered: Int64 = 0
    /// For waking the thread out of its poll; nil before it runs and after it has ended.
    private var multi: UnsafeMutableRawPointer?

    // thread
    private var size: Int64?
    private var nextStart: Int64
    private var transfers: [UnsafeMutableRawPointer: RangeTransfer] = [:]
    private var waiting: [Part] = []
    private var stream: Stream?
    private var lastPaceCheck = ContinuousClock.now

    init(
        _ source: RangeSource, size: Int64?, offset: Int64, connections: Int, slots: Int, part: Int, retry: RetryPolicy,
        settings: CurlSettings, stop: StopFlag
    ) {
        self.source = source
        self.size = size
        self.offset = offset
        self.connections = connections
        self.slots = slots
        partSize = part
        self.retry = retry
        self.settings = settings
        self.stop = stop
        nextStart = offset
        if size == nil || !source.isPinned {
            stream = Stream(position: offset, first: offset, canContinue: source.isPinned)
        }
    }

    // MARK: the reader's side

    func next() throws -> (UnsafeRawBufferPointer, Int64) {
        try monitor.locked {
            while true {
                if let failure { throw failure }
                if isClosed { throw TransferError.closed(object: source.name) }
                if let part = window.first {
                    if part.isComplete && part.taken == part.filled {
                        window.removeFirst()
                        free.append(part.buffer)
                        if let multi { curl_multi_wakeup(multi) }
                        continue
                    }
                    if part.filled > part.taken {
                        let bytes = UnsafeRawBufferPointer(
                            start: part.buffer + part.taken, count: part.filled - part.taken)
                        part.taken = part.filled
                        delivered += Int64(bytes.count)
                        return (bytes, delivered)
                    }
                } else if isFinished {
                    return (UnsafeRawBufferPointer(start: nil, count: 0), delivered)
                }
                isReaderWaiting = true
                monitor.wait(milliseconds: 100)
                isReaderWaiting = false
                try stop.check()
            }
        }
    }

    func close() {
        monitor.locked {
            isClosed = true
            if let multi { curl_multi_wakeup(multi) }
            monitor.wake()
        }
    }

    /// Only after the thread was joined, and with no reader any more.
    func freeBuffers() {
        monitor.locked {
            for buffer in allocated { buffer.deallocate() }
            allocated = []
            free = []
            window = []
        }
    }

    // MARK: the thread

    func run() {
        do {
            guard CurlLibrary.isReady, let multi = curl_multi_init() else {
                throw HTTPFailure(.other, url: source.name, detail: "libcurl cannot be initialised")
            }
            _ = amorce_curl_multi_set_long(multi, CURLMOPT_MAXCONNECTS, connections + 2)
            monitor.locked { self.multi = multi }
            defer {
                monitor.locked { self.multi = nil }
                for handle in Array(transfers.keys) { curl_multi_remove_handle(multi, handle) }
                transfers = [:]
                curl_multi_cleanup(multi)
            }
            try loop(multi)
        } catch let problem as HTTPFailure {
            fail(source.wrap(problem))
        } catch {
            fail(error)
        }
    }

    private func fail(_ error: any Error) {
        monitor.locked {
            if failure == nil { failure = error }
            monitor.wake()
        }
    }

    private func loop(_ multi: UnsafeMutableRawPointer) throws {
        while true {
            try stop.check()
            if monitor.locked({ isClosed }) { return }
            try startTransfers(multi)
            if transfers.isEmpty && waiting.isEmpty && stream == nil && nextStart == size {
                monitor.locked {
                    isFinished = true
                    monitor.wake()
                }
                return
            }
            var running: CInt = 0
            guard curl_multi_perform(multi, &running) == CURLM_OK else {
                throw HTTPFailure(.other, url: source.name, detail: "curl_multi_perform failed")
            }
            var left: CInt = 0
            var ended: [(RangeTransfer, CURLcode)] = []
            while let message = curl_multi_info_read(multi, &left) {
                guard message.pointee.msg == CURLMSG_DONE, let handle = message.pointee.easy_handle,
                    let transfer = transfers[handle]
                else { continue }
                ended.append((transfer, amorce_curl_message_result(message)))
            }
            // A restart by one of them has taken the others away.
            for (transfer, code) in ended where transfers[transfer.handle] === transfer {
                try end(transfer, code, multi)
            }
            try checkPace(multi)
            resumeStream()
            curl_multi_poll(multi, nil, 0, pollTime(), nil)
        }
    }

    private func pollTime() -> CInt {
        let retries = (waiting as [Work] + (stream.map { [$0] } ?? [])).compactMap(\.retryAt)
        guard let first = retries.min() else { return 100 }
        return CInt(max(1, min(100, ContinuousClock.now.duration(to: first).inSeconds * 1000)))
    }

    private func startTransfers(_ multi: UnsafeMutableRawPointer) throws {
        if let stream {
            if !stream.isRunning && isDue(stream) { try start(stream, multi) }
            return
        }
        for part in waiting where isDue(part) {
            waiting.removeAll { $0 === part }
            try start(part, multi)
        }
        while stream == nil, let size, nextStart < size, transfers.count + waiting.count < connections,
            let buffer = takeBuffer()
        {
            let length = Int(min(Int64(partSize), size - nextStart))
            let part = Part(start: nextStart, length: length, buffer: buffer)
            nextStart += Int64(length)
            monitor.locked { window.append(part) }
            try start(part, multi)
        }
    }

    private func isDue(_ work: Work) -> Bool { work.retryAt.map { $0 <= ContinuousClock.now } ?? true }

    private func takeBuffer() -> UnsafeMutableRawPointer? {
        monitor.locked {
            if let buffer = free.popLast() { return buffer }
            guard allocated.count < slots else { return nil }
            let buffer = UnsafeMutableRawPointer.allocate(byteCount: partSize, alignment: 4096)
            allocated.append(buffer)
            return buffer
        }
    }

    private func start(_ work: Work, _ multi: UnsafeMutableRawPointer) throws {
        var range: Range<Int64>?
        if let part = work as? Part {
            range = part.start + Int64(part.filled)..<part.start + Int64(part.length)
        } else if let stream = work as? Stream, stream.position > 0 {
            range = stream.position..<Int64.max
        }
        let attempt = try source.attempt(range)
        let transfer = try RangeTransfer(attempt, range: range, work: work, engine: self, settings: settings)
        guard curl_multi_add_handle(multi, transfer.handle) == CURLM_OK else {
            throw HTTPFailure(.other, url: attempt.request.url, detail: "curl_multi_add_handle failed")
        }
        work.isRunning = true
        work.retryAt = nil
        transfers[transfer.handle] = transfer
    }

    private func remove(_ transfer: RangeTransfer, _ multi: UnsafeMutableRawPointer) {
        curl_multi_remove_handle(multi, transfer.handle)
        transfers[transfer.handle] = nil
        transfer.work.isRunning = false
    }

    // MARK: answers

    /// Whether the head of a 200 or 206 promises exactly what was asked for. Nil: take the body.
    func objection(to head: HTTPResponse, asked range: Range<Int64>?) -> RangeTransfer.Outcome? {
        let length = head.header("Content-Length").flatMap { Int64($0) }
        // rclone's S3 server answers a range with 200 and a right Content-Range, so that header decides and not the
        // status.
        guard let text = head.header("Content-Range") else {
            if head.status == 206 { return .fail(wrongRange(range, "206 without Content-Range")) }
            if range != nil { return .ignoredRange }
            if let size, let length, length != size {
                return .fail(TransferError.wrongLength(object: source.name, expected: size, got: length))
            }
            let isChunked = head.header("Transfer-Encoding")?.lowercased().contains("chunked") ?? false
            if size == nil && length == nil && !isChunked { return .fail(TransferError.noLength(object: source.name)) }
            if size == nil { size = length }
            return nil
        }
        guard let got = ContentRange(text) else { return .fail(wrongRange(range, text)) }
        var wanted = range ?? 0..<Int64.max
        if wanted.upperBound == .max { wanted = wanted.lowerBound..<max(wanted.lowerBound, size ?? got.total) }
        guard got.range == wanted, size == nil || got.total == size else { return .fail(wrongRange(range, text)) }
        if let length, length != Int64(got.range.count) {
            return .fail(wrongRange(range, "\(text) with a length of \(length)"))
        }
        if size == nil { size = got.total }
        return nil
    }

    private func wrongRange(_ range: Range<Int64>?, _ got: String) -> TransferError {
        .wrongRange(object: source.name, asked: range.map { RangeSource.header($0) } ?? "the whole", got: got)
    }

    /// Takes a piece of an accepted body.
    func take(_ bytes: UnsafeRawBufferPointer, for work: Work) -> CurlEasy.Taken {
        if let part = work as? Part {
            guard let from = bytes.baseAddress, part.filled + bytes.count <= part.length else { return .refuse }
            (part.buffer + part.filled).copyMemory(from: from, byteCount: bytes.count)
            monitor.locked {
                part.filled += bytes.count
                wakeReader(of: part)
            }
            return .all
        }
        guard let stream = work as? Stream else { return .refuse }
        return take(bytes, stream)
    }

    /// A reader is woken for a fair piece, not for each 16 KiB that libcurl hands over; its own wait ends after 100 ms.
    private func wakeReader(of part: Part) {
        if isReaderWaiting && part === window.first && (part.isComplete || part.filled - part.taken >= 128 << 10) {
            monitor.wake()
        }
    }

    private func take(_ bytes: UnsafeRawBufferPointer, _ stream: Stream) -> CurlEasy.Taken {
        if let size, stream.position + Int64(bytes.count) > size { return .refuse }
        let skipped = Int(max(0, min(Int64(bytes.count), stream.first - stream.position)))
        var rest = UnsafeRawBufferPointer(rebasing: bytes[skipped...])
        // All or nothing: libcurl hands over a paused piece again whole.
        var part = openPart()
        var fresh: Part?
        if rest.count > (part.map { $0.length - $0.filled } ?? 0) {
            guard let buffer = takeBuffer() else { return .none }
            fresh = Part(start: 0, length: partSize, buffer: buffer)
        }
        stream.position += Int64(bytes.count)
        while !rest.isEmpty {
            if part == nil {
                guard let next = fresh else { return .refuse }
                fresh = nil
                part = next
                monitor.locked { window.append(next) }
            }
            guard let current = part, let from = rest.baseAddress else { return .refuse }
            let count = min(rest.count, current.length - current.filled)
            (current.buffer + current.filled).copyMemory(from: from, byteCount: count)
            monitor.locked {
                current.filled += count
                current.isComplete = current.filled == current.length
                wakeReader(of: current)
            }
            if current.isComplete { part = nil }
            rest = UnsafeRawBufferPointer(rebasing: rest[count...])
        }
        if let fresh { monitor.locked { free.append(fresh.buffer) } }
        return .all
    }

    private func openPart() -> Part? {
        monitor.locked { window.last.flatMap { $0.isComplete ? nil : $0 } }
    }

    private func resumeStream() {
        guard let transfer = transfers.values.first(where: { $0.isPaused }) else { return }
        let hasRoom = monitor.locked { !free.isEmpty || allocated.count < slots }
        guard hasRoom else { return }
        // The time that the reader took is not the server's.
        transfer.restartClock()
        transfer.resume()
    }

    private func end(_ transfer: RangeTransfer, _ code: CURLcode, _ multi: UnsafeMutableRawPointer) throws {
        // A body without bytes was not judged yet.
        transfer.judgeIfNeeded()
        let outcome = transfer.outcome
        let failure = code == CURLE_OK ? nil : transfer.failure(code)
        remove(transfer, multi)
        switch outcome {
        case .fail(let error): throw error
        case .ignoredRange:
            let error = TransferError.cannotResume(object: source.name)
            // From byte 0 no range is asked, so there is nothing left to ignore.
            if let stream, stream.position == 0 { throw error }
            try restart(multi, orThrow: error)
        case .taken:
            if let failure { return try again(transfer, failure, multi) }
            try complete(transfer, multi)
        case .body:
            if let failure { return try again(transfer, failure, multi) }
            switch transfer.finalVerdict() {
            case .accept:
                throw TransferError.unexpectedStatus(object: source.name, status: transfer.head.status)
            case .again: try sendAgain(transfer)
            case .later(let hint, let error): try later(transfer.work, gained: 0, hint: hint, error: error)
            case .fail(let error): throw error
            }
        case .again: try sendAgain(transfer)
        }
    }

    private func sendAgain(_ transfer: RangeTransfer) throws {
        let work = transfer.work
        work.repeats += 1
        guard work.repeats <= 6 else {
            throw TransferError.unexpectedStatus(object: source.name, status: transfer.head.status)
        }
        if let part = work as? Part { waiting.append(part) }
    }

    private func complete(_ transfer: RangeTransfer, _ multi: UnsafeMutableRawPointer) throws {
        if let part = transfer.work as? Part {
            guard part.filled == part.length else {
                return try again(transfer, HTTPFailure(.truncated, url: transfer.url), multi)
            }
            monitor.locked {
                part.isComplete = true
                if part === window.first { monitor.wake() }
            }
        } else if let stream = transfer.work as? Stream {
            if let size, stream.position != size {
                // libcurl checks a Content-Length itself; this is a chunked answer of another length than the
                // listing's.
                throw TransferError.wrongLength(object: source.name, expected: size, got: stream.position)
            }
            guard stream.position >= stream.first else {
                throw TransferError.wrongLength(object: source.name, expected: stream.first, got: stream.position)
            }
            monitor.locked {
                window.last?.isComplete = true
                monitor.wake()
            }
            nextStart = stream.position
            size = stream.position
            self.stream = nil
        }
    }

    private func again(_ transfer: RangeTransfer, _ failure: HTTPFailure, _ multi: UnsafeMutableRawPointer) throws {
        if failure.code == CURLE_WRITE_ERROR.rawValue {
            // Our own refusal of bytes beyond the end.
            throw TransferError.tooLong(object: source.name)
        }
        guard failure.isWorthRetrying else { throw failure }
        let error = source.wrap(failure)
        let gained = transfer.received
        if let stream = transfer.work as? Stream, !stream.canContinue, stream.position > stream.first {
            try restart(multi, orThrow: error)
            self.stream?.failures = stream.failures
            if let fresh = self.stream { try later(fresh, gained: 0, hint: nil, error: error) }
            return
        }
        try later(transfer.work, gained: gained, hint: nil, error: error)
    }

    private func later(_ work: Work, gained: Int64, hint: Duration?, error: any Error) throws {
        if gained >= retry.progress {
            work.failures = 0
            work.repeats = 0
        }
        work.failures += 1
        guard let pause = retry.pause(afterFailure: work.failures, hint: hint, random: .random(in: 0..<1)) else {
            throw error
        }
        work.retryAt = ContinuousClock.now.advanced(by: pause)
        if let part = work as? Part { waiting.append(part) }
    }

    /// One stream from the first byte in place of all that is under way: the server answered a range with the whole
    /// object, or cannot continue. Only where nothing was handed on yet; else the download cannot be right any more.
    private func restart(_ multi: UnsafeMutableRawPointer, orThrow error: any Error) throws {
        for transfer in Array(transfers.values) { remove(transfer, multi) }
        waiting = []
        let isFresh = monitor.locked {
            guard delivered == 0 else { return false }
            free += window.map(\.buffer)
            window = []
            return true
        }
        guard isFresh else { throw error }
        stream = Stream(position: 0, first: offset, canContinue: false)
    }

    private func checkPace(_ multi: UnsafeMutableRawPointer) throws {
        let now = ContinuousClock.now
        guard lastPaceCheck.duration(to: now) > .milliseconds(100) else { return }
        lastPaceCheck = now
        for transfer in Array(transfers.values) where !transfer.isPaused {
            guard let kind = transfer.slowness(now, retry) else { continue }
            remove(transfer, multi)
            try again(transfer, HTTPFailure(kind, url: transfer.url), multi)
        }
    }

    /// One request in flight.
    final class RangeTransfer: CurlEasy {
        enum Outcome {
            /// Another status than 200 and 206: its body is the explanation.
            case body
            case taken
            case ignoredRange
            case again
            case fail(any Error)
        }

        let work: Work
        private let range: Range<Int64>?
        private let judge: @Sendable (HTTPResponse) -> RangeSource.Verdict
        private unowned let engine: DownloadEngine
        private(set) var outcome = Outcome.body
        private var isJudged = false
        private var explanation: [UInt8] = []
        private(set) var received: Int64 = 0
        private var lastBytes = ContinuousClock.now
        private var windowStart = ContinuousClock.now
        private var windowBytes: Int64 = 0

        init(
            _ attempt: RangeSource.Attempt, range: Range<Int64>?, work: Work, engine: DownloadEngine,
            settings: CurlSettings
        ) throws {
            self.work = work
            self.range = range
            judge = attempt.judge
            self.engine = engine
            try super.init(attempt.request, settings: settings, timeout: nil)
        }

        /// How many bytes the range has, where that was asked.
        var expected: Int64? { range.flatMap { $0.upperBound == .max ? nil : Int64($0.count) } }

        override func receive(_ bytes: UnsafeRawBufferPointer) -> Taken {
            lastBytes = .now
            judgeIfNeeded()
            switch outcome {
            case .fail, .ignoredRange, .again: return .refuse
            case .body:
                explanation.append(contentsOf: bytes.prefix((64 << 10) - explanation.count))
                return .all
            case .taken:
                let taken = engine.take(bytes, for: work)
                if case .all = taken {
                    received += Int64(bytes.count)
                    windowBytes += Int64(bytes.count)
                }
                return taken
            }
        }

        func judgeIfNeeded() {
            guard !isJudged, head.status == 200 || head.status == 206 else { return }
            isJudged = true
            switch judge(head) {
            case .accept: outcome = engine.objection(to: head, asked: range) ?? .taken
            case .again: outcome = .again
            case .later(_, let error), .fail(let error): outcome = .fail(error)
            }
        }

        func finalVerdict() -> RangeSource.Verdict {
            judge(HTTPResponse(status: head.status, headers: head.headers, body: explanation))
        }

        func restartClock() {
            lastBytes = .now
            windowStart = .now
            windowBytes = 0
        }

        func slowness(_ now: ContinuousClock.Instant, _ retry: RetryPolicy) -> HTTPFailure.Kind? {
            if lastBytes.duration(to: now) > retry.idle { return .stalled(retry.idle) }
            let time = windowStart.duration(to: now)
            guard time > retry.rateWindow else { return nil }
            if Double(windowBytes) < Double(retry.leastRate) * time.inSeconds {
                return .tooSlow(bytesPerSecond: retry.leastRate)
            }
            windowStart = now
            windowBytes = 0
            return nil
        }
    }
}
