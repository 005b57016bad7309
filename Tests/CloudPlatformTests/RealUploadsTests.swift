import CloudPlatform
import HostSystem
import Synchronization
import TestSupport
import Testing

/// The same servers as judges of what is written.
extension RealStoresTests {
    /// Ten mebibytes of an older object, then new bytes in parts from two threads; returns what it must be.
    func upload(_ store: S3Store, _ key: String, copies: Bool) throws -> (object: StoredObject, bytes: [UInt8]) {
        let old = seededBytes(11 << 20, seed: 7)
        try store.put(key: "boutique/old a+b.tar", bytes: old, stop: stop)
        let source = try #require(try store.stat(key: "boutique/old a+b.tar", stop: stop))
        let pieces = (2...5).map { seededBytes($0 == 5 ? 1234 : 5 << 20, seed: UInt64($0)) }
        let upload = try store.beginUpload(key: key, stop: stop)
        let range = Int64(1000)..<(10 << 20) + 1000
        if copies {
            try upload.copy(part: 1, from: source, range: range)
        } else {
            let refused = try store.beginUpload(key: key, stop: stop)
            let error = try #require(throws: CopySourceGone.self) {
                try refused.copy(part: 1, from: source, range: range)
            }
            #expect("\(error)".contains("the store copies no parts of it"))
            refused.abort()
            try upload.send(part: 1, bytes: Array(old[1000..<(10 << 20) + 1000]))
        }
        try AtOnce.run([[3, 2], [5, 4]]) { numbers in
            for number in numbers { try upload.send(part: number, bytes: pieces[number - 2]) }
        }
        #expect(try store.stat(key: key, stop: stop) == nil)
        let object = try upload.complete()
        upload.abort()
        return (object, Array(old[1000..<(10 << 20) + 1000]) + pieces.flatMap { $0 })
    }

    /// What every server must do with an upload in parts.
    func judge(_ store: S3Store, copies: Bool = true) throws {
        let (object, bytes) = try upload(store, Self.oddKey, copies: copies)
        #expect(object.size == Int64(bytes.count))
        #expect(try store.stat(key: Self.oddKey, stop: stop)?.size == Int64(bytes.count))
        #expect(try store.open(object, memory: ByteCount(8 << 20), stop: stop) { _ in }.readAll() == bytes)
        // A part that was replaced at the source is not copied.
        let next = try store.beginUpload(key: "boutique/next", stop: stop)
        let gone = StoredObject(key: "boutique/none", size: 6 << 20, etag: "\"x\"")
        #expect(throws: CopySourceGone.self) { try next.copy(part: 1, from: gone, range: 0..<(5 << 20)) }
        try next.send(part: 2, bytes: [1])
        next.abort()
        #expect(throws: UploadError.self) { try next.complete() }
        #expect(try store.stat(key: "boutique/next", stop: stop) == nil)
        try store.remove(key: Self.oddKey, stop: stop)
        try store.remove(key: Self.oddKey, stop: stop)
        #expect(try store.stat(key: Self.oddKey, stop: stop) == nil)
    }

    /// Nothing is replaced.
    func judgeConditions(_ store: S3Store) throws {
        try store.put(key: "taken", bytes: Array("told".utf8), stop: stop)
        #expect(throws: StoreConflict(object: "s3://acme/taken")) {
            try store.put(key: "taken", bytes: Array("told".utf8), stop: stop)
        }
        #expect(throws: StoreConflict(object: "s3://acme/taken")) { try store.beginUpload(key: "taken", stop: stop) }
        let late = try store.beginUpload(key: "late", stop: stop)
        try late.send(part: 1, bytes: [1, 2, 3])
        try store.put(key: "late", bytes: [9], stop: stop)
        #expect(throws: StoreConflict(object: "s3://acme/late")) { try late.complete() }
        late.abort()
        #expect(try store.read(key: "late", limit: 9, stop: stop) == [9])
    }

    @Test("rclone's server accepts the signature of every step of an upload")
    func rcloneUpload() throws {
        try scratch.write("acme/boutique/x.tar", bytes)
        let keys = Keys(accessKey: "AKTEST", secretKey: "MADE-UP-SECRET")
        let server = try LoopbackServer([
            TestTools.program("rclone"), "serve", "s3", scratch.path, "--addr", "127.0.0.1:{port}", "--auth-key",
            "AKTEST,MADE-UP-SECRET", "--config", "/dev/null",
        ])
        // It takes UploadPartCopy for an UploadPart of nothing: that must not pass for a copied part.
        try judge(try store(server, keys), copies: false)
        // It ignores the condition, so that the look before has to do.
        try judgeConditions(try store(server, keys))
    }

    @Test("moto takes an upload in parts, and refuses small parts and taken names")
    func motoUpload() throws {
        let server = try LoopbackServer([TestTools.program("moto_server"), "-H", "127.0.0.1", "-p", "{port}"])
        let keys = Keys(accessKey: "AKTEST", secretKey: "MADE-UP-SECRET")
        _ = try send("PUT", server.url + "/acme", keys)
        let store = try store(server, keys)
        try judge(store)
        try judgeConditions(store)
        let small = try store.beginUpload(key: "small", stop: stop)
        try small.send(part: 1, bytes: [1])
        try small.send(part: 2, bytes: [2])
        let error = try #require(throws: StoreError.self) { try small.complete() }
        #expect("\(error)".contains("EntityTooSmall"))
        small.abort()
        let uploads = try send("GET", server.url + "/acme?uploads=", keys).text
        #expect(!uploads.contains("<UploadId>"))
    }

    @Test("ministack takes an upload in parts, refuses damage and taken names, and each role what it may not")
    func ministackUpload() throws {
        let server = try ministackServer()
        let keys = try user("front", allowed: ["s3:*"], server)
        _ = try send("PUT", server.url + "/acme", keys)
        let store = try store(server, keys)
        try judge(store)
        try judgeConditions(store)
        // Signed for another region, the bucket names its own.
        try self.store(server, keys, region: "eu-west-3").put(key: "region", bytes: [1], stop: stop)

        let recorder = LogRecorder()
        let damaging = Damaging(transport)
        let damaged = try self.store(server, keys, transport: damaging, log: recorder.log)
        try damaged.put(key: "damaged", bytes: Array("told".utf8), stop: stop)
        #expect(try store.read(key: "damaged", limit: 9, stop: stop) == Array("told".utf8))
        #expect(recorder.text.contains("BadDigest"))

        let writer = try user("writer", allowed: ["s3:PutObject"], server)
        let narrow = try self.store(server, writer, log: recorder.log)
        let upload = try narrow.beginUpload(key: "narrow", stop: stop)
        try upload.send(part: 1, bytes: [1, 2, 3])
        #expect(try upload.complete().size == 3)
        try narrow.put(key: "narrow.manifest", bytes: [1], stop: stop)
        #expect(throws: StoreConflict.self) { try narrow.put(key: "narrow.manifest", bytes: [1], stop: stop) }
        let refusal = try #require(throws: StoreError.self) { try narrow.remove(key: "narrow", stop: stop) }
        #expect(refusal.isPermission && "\(refusal)".contains("s3:DeleteObject"))
        let reader = try self.store(server, try user("reader", allowed: ["s3:GetObject"], server))
        let denied = try #require(throws: StoreError.self) { try reader.put(key: "x", bytes: [1], stop: stop) }
        #expect(denied.isPermission && "\(denied)".contains("s3:PutObject"))
    }
}

/// Changes a byte of the first body on its way, behind the signature and the checksum.
private final class Damaging: HTTPTransport {
    private let next: any HTTPTransport
    private let done = Mutex(false)

    init(_ next: any HTTPTransport) { self.next = next }

    func perform(_ request: HTTPRequest, stop: StopFlag) throws -> HTTPResponse {
        var request = request
        let isFirst = done.withLock { done in
            guard !done && request.body?.isEmpty == false else { return false }
            done = true
            return true
        }
        if isFirst { request.body?[0] ^= 1 }
        return try next.perform(request, stop: stop)
    }
}
