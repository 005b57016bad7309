import Foundation
import HostSystem
import Synchronization
import TestSupport
import Testing

/// The bytes of an object through a server that misbehaves as it is told: always the whole object, or an error; never a
/// splice.
@Suite struct RangedDownloadTests {
    enum Told: Error, Equatable {
        case replaced, removed, later
    }

    let scratch: ScratchDirectory
    let bytes = seededBytes(3_000_001)
    let file: String

    init() throws {
        scratch = try ScratchDirectory()
        file = try scratch.write("object", bytes)
    }

    static var hasty: RetryPolicy {
        var retry = RetryPolicy()
        retry.firstPause = .milliseconds(5)
        retry.longestPause = .milliseconds(50)
        retry.idle = .milliseconds(400)
        retry.rateWindow = .milliseconds(900)
        retry.attempts = 4
        return retry
    }

    func server(_ steps: [String] = [], etag: String? = "\"one\"", modified: String? = nil) throws -> FaultServer {
        try FaultServer(["/object": .init(file: file, etag: etag, modified: modified, steps: steps)])
    }

    func source(_ server: FaultServer, isPinned: Bool = true) -> RangeSource {
        // The closure keeps the server running.
        RangeSource(name: "object", isPinned: isPinned) { range in
            var headers: [(name: String, value: String)] = isPinned ? [("If-Match", "\"one\"")] : []
            if let range { headers.append(("Range", RangeSource.header(range))) }
            return RangeSource.Attempt(request: HTTPRequest("GET", server.url + "/object", headers: headers)) {
                response in
                switch response.status {
                case 200, 206: !isPinned || response.header("ETag") == "\"one\"" ? .accept : .fail(Told.replaced)
                case 412: .fail(Told.replaced)
                case 404: .fail(Told.removed)
                case 418: .again
                default:
                    RetryPolicy.isLater(status: response.status)
                        ? .later(after: RetryPolicy.hint(response), error: Told.later)
                        : .fail(TransferError.unexpectedStatus(object: "object", status: response.status))
                }
            }
        }
    }

    func download(
        _ server: FaultServer, isPinned: Bool = true, size: Int64? = 3_000_001, from offset: Int64 = 0,
        connections: Int = 4,
        memory: Int = 1 << 20, stop: StopFlag = .bounded(), progress: @escaping ProgressHandler = { _ in }
    ) throws -> RangedDownload {
        try RangedDownload(
            source(server, isPinned: isPinned), size: size, from: offset, connections: connections,
            memory: ByteCount(memory), retry: Self.hasty, environment: [:], stop: stop, progress: progress)
    }

    @Test(
        "the bytes are whole and in order",
        arguments: [
            (1, 131_072, 0), (1, 1_048_576, 17), (2, 1_048_576, 0), (8, 1_048_576, 0), (8, 67_108_864, 0),
            (16, 1_048_576, 2_999_999), (4, 1_048_576, 3_000_001),
        ] as [(Int, Int, Int64)])
    func whole(connections: Int, memory: Int, offset: Int64) throws {
        let server = try server()
        let seen = Mutex<HostSystem.Progress?>(nil)
        let download = try download(server, from: offset, connections: connections, memory: memory) { progress in
            seen.withLock { $0 = progress }
        }
        #expect(try download.readAll() == Array(bytes[Int(offset)...]))
        #expect(try download.nextBytes().isEmpty)
        #expect(seen.withLock { $0?.bytes } == 3_000_001 - offset)
        #expect(seen.withLock { $0?.totalBytes } == 3_000_001 - offset)
    }

    @Test("buffers and connections stay within what was set", arguments: [2, 5])
    func bounded(connections: Int) throws {
        let server = try server()
        let download = try download(server, connections: connections, memory: 1 << 20)
        // Nothing is taken: the window fills and no more is asked for.
        _ = try download.nextBytes()
        usleep(400_000)
        let asked = try server.requests().compactMap { $0.header("Range") }
        let part = (1 << 20) / (connections + 2) & ~4095
        #expect(asked.count * part <= 1 << 20)
        #expect(try download.readAll().count > 0)
    }

    @Test("a break at any byte is continued from there", arguments: ["fin", "reset"], [0, 1, 40_000, 65_535, 65_536])
    func broken(how: String, cut: Int) throws {
        let step = #"{"cut":\#(cut),"how":"\#(how)"}"#
        let server = try server([step, step, step])
        let download = try download(server, connections: 2, memory: 256 << 10)
        #expect(try download.readAll() == bytes)
    }

    @Test("a stream of unknown size is continued as well", arguments: [0, 1, 1_500_000, 3_000_000])
    func brokenStream(cut: Int) throws {
        let server = try server([#"{"cut":\#(cut),"how":"reset"}"#])
        #expect(try download(server, size: nil).readAll() == bytes)
    }

    @Test("what cannot be pinned is not continued after its first byte")
    func unpinned() throws {
        let server = try server([#"{"cut":2000000}"#])
        let download = try download(server, isPinned: false)
        _ = try download.nextBytes()
        #expect(throws: HTTPFailure.self) { try download.readAll() }
        #expect(try self.download(try self.server(), isPinned: false).readAll() == bytes)
    }

    @Test("a stall is noticed and continued")
    func stall() throws {
        let server = try server([#"{"stall":50000}"#, #"{"stall":0}"#])
        #expect(try download(server).readAll() == bytes)
    }

    @Test(
        "stalls and drips without end end the transfer",
        arguments: [
            (#"{"stall":10}"#, HTTPFailure.Kind.stalled(.milliseconds(400))),
            (#"{"drip":10,"pause":0.05}"#, .tooSlow(bytesPerSecond: 2048)),
        ])
    func slow(step: String, expected: HTTPFailure.Kind) throws {
        let server = try server(Array(repeating: step, count: 60))
        let download = try download(server, connections: 1)
        let failure = try #require(throws: HTTPFailure.self) { try download.readAll() }
        #expect(failure.kind == expected)
    }

    @Test("later means later, and not for ever", arguments: [500, 502, 503, 504, 429])
    func later(status: Int) throws {
        let step = #"{"status":\#(status),"body":"busy"}"#
        #expect(try download(try server([step, step, step])).readAll() == bytes)
        let hopeless = try download(try server(Array(repeating: step, count: 60)))
        #expect(throws: Told.later) { try hopeless.readAll() }
    }

    @Test("a request that taught something is sent again at once, a few times")
    func again() throws {
        let step = #"{"status":418}"#
        #expect(try download(try server([step, step, step])).readAll() == bytes)
        let circle = try download(try server(Array(repeating: step, count: 60)))
        #expect(throws: TransferError.unexpectedStatus(object: "object", status: 418)) { try circle.readAll() }
    }

    @Test("a server without ranges gives one stream from the first byte")
    func ignoredRange() throws {
        let step = #"{"ignore-range":true}"#
        let server = try server(Array(repeating: step, count: 60))
        #expect(try download(server).readAll() == bytes)
        #expect(try download(server, from: 1_000_000).readAll() == Array(bytes[1_000_000...]))
        #expect(try server.requests().contains { $0.header("Range") == nil })
    }

    @Test("an answer with the whole object in the middle is never spliced in")
    func lateIgnoredRange() throws {
        let server = try server(["{}", "{}", #"{"ignore-range":true}"#])
        let download = try download(server, connections: 1, memory: 256 << 10)
        #expect(throws: TransferError.cannotResume(object: "object")) { try download.readAll() }
    }

    @Test("200 with the right Content-Range is a good answer")
    func rangeWith200() throws {
        let server = try server(Array(repeating: #"{"status-200":true}"#, count: 60))
        #expect(try download(server).readAll() == bytes)
    }

    @Test(
        "a wrong range is refused",
        arguments: [
            #"{"content-range":"bytes 5-9/3000001"}"#, #"{"content-range":null,"status-200":false}"#,
            #"{"content-range":"bytes 0-65535/3000000"}"#, #"{"content-range":"bytes 0-9/*"}"#,
            #"{"content-range":"nonsense"}"#,
            #"{"content-range":"bytes 0-3000000/3000001","status-200":true}"#,
        ])
    func wrongRange(step: String) throws {
        let server = try server([step])
        let download = try download(server, connections: 1, memory: 256 << 10)
        let error = try #require(throws: TransferError.self) { try download.readAll() }
        guard case .wrongRange = error else {
            Issue.record("\(error)")
            return
        }
    }

    @Test(
        "another length than promised is an error or is continued",
        arguments: [
            (#"{"content-length":3000001,"file":"SHORT"}"#, true), (#"{"content-length":17}"#, false),
            (#"{"chunked":true,"file":"SHORT"}"#, false), (#"{"chunked":true,"file":"LONG"}"#, false),
        ])
    func wrongLength(step: String, isContinued: Bool) throws {
        let short = try scratch.write("short", Array(bytes.dropLast(1000)))
        let long = try scratch.write("long", bytes + [1, 2, 3])
        let told = step.replacingOccurrences(of: "SHORT", with: short).replacingOccurrences(of: "LONG", with: long)
        let server = try server([#"{"ignore-range":true}"#, told])
        let download = try download(server, connections: 1)
        if isContinued {
            // The promise was right, the connection ended early: not to be continued without ranges after the first
            // byte.
            #expect(throws: (any Error).self) { try download.readAll() }
        } else {
            #expect(throws: TransferError.self) { try download.readAll() }
        }
    }

    @Test("chunks without a length are accepted, a body that only ends is not")
    func noLength() throws {
        #expect(try download(try server([#"{"chunked":true}"#]), size: nil).readAll() == bytes)
        let endless = try download(try server([#"{"content-length":null}"#]), size: nil)
        #expect(throws: TransferError.noLength(object: "object")) { try endless.readAll() }
    }

    @Test(
        "replaced or removed in the middle is told as that",
        arguments: [
            (#"{"etag":"\"two\""}"#, Told.replaced), (#"{"etag":"\"two\"","ignore-match":true}"#, .replaced),
            (#"{"status":404}"#, .removed),
        ])
    func changed(step: String, expected: Told) throws {
        let server = try server(["{}", "{}"] + Array(repeating: step, count: 60))
        let download = try download(server, connections: 1, memory: 256 << 10)
        #expect(throws: expected) { try download.readAll() }
        #expect(throws: expected) { try download.nextBytes() }
    }

    @Test("a stop ends it, while nothing comes too")
    func stopped() throws {
        let stop = StopFlag.bounded()
        let download = try download(try server(Array(repeating: #"{"stall":0}"#, count: 9)), stop: stop)
        stop.raise(signal: SIGTERM)
        #expect(throws: StopReason.signal(SIGTERM)) { try download.readAll() }
    }

    @Test("closing joins the thread, in the middle and twice")
    func closed() throws {
        let download = try download(try server(Array(repeating: #"{"stall":9}"#, count: 9)))
        _ = try download.nextBytes()
        download.close()
        download.close()
        #expect(throws: TransferError.closed(object: "object")) { try download.nextBytes() }
    }

    @Test("the last reference going away ends the thread")
    func dropped() throws {
        let server = try server(Array(repeating: #"{"stall":9}"#, count: 9))
        final class Held: Sendable {}
        var held: Held? = Held()
        weak let watched = held
        var source = source(server)
        let attempt = source.attempt
        source.attempt = { [held] range in
            _ = held
            return try attempt(range)
        }
        var download: RangedDownload? = try RangedDownload(
            source, size: 3_000_001, memory: ByteCount(1 << 20), retry: Self.hasty, environment: [:], stop: .bounded())
        _ = try download?.nextBytes()
        source = self.source(server)
        held = nil
        #expect(watched != nil)
        download = nil
        // The thread held what the closure held.
        #expect(watched == nil)
    }

    @Test("a server that is not there is told after the tries")
    func refused() throws {
        let port = LoopbackServer.freePort()
        let source = RangeSource(name: "object", isPinned: true) { _ in
            RangeSource.Attempt(request: HTTPRequest("GET", "http://127.0.0.1:\(port)/object?MADE-UP-SECRET")) { _ in
                .accept
            }
        }
        let download = try RangedDownload(
            source, size: 10, memory: ByteCount(1 << 20), retry: Self.hasty, environment: [:], stop: .bounded())
        let failure = try #require(throws: HTTPFailure.self) { try download.readAll() }
        #expect(failure.kind == .refused)
        #expect(!"\(failure)".contains("MADE-UP-SECRET"))
    }
}

@Suite struct RetryPolicyTests {
    @Test(
        "pauses double up to the longest, half of each is left to chance",
        arguments: [
            (1, 0.0, 100), (1, 1.0, 200), (2, 0.0, 200), (5, 0.0, 1600), (5, 1.0, 3200),
        ])
    func pauses(failures: Int, random: Double, milliseconds: Int) {
        #expect(RetryPolicy().pause(afterFailure: failures, random: random) == .milliseconds(milliseconds))
    }

    @Test("the server's own time is kept, within bounds; the last failure is final")
    func hints() {
        let retry = RetryPolicy()
        #expect(retry.pause(afterFailure: 1, hint: .seconds(5), random: 0) == .seconds(5))
        #expect(retry.pause(afterFailure: 1, hint: .seconds(9000), random: 0) == .seconds(20))
        #expect(retry.pause(afterFailure: 6, random: 0) == nil)
    }
}
