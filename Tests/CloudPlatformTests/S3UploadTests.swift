import CloudPlatform
import Foundation
import HostSystem
import Synchronization
import TestSupport
import Testing

/// S3's answers to whoever writes, canned: what the store makes of each.
@Suite struct S3UploadTests {
    static let key = "boutique/b c.tar"
    static let path = "/acme/boutique/b%20c.tar"
    static let shown = "s3://acme/boutique/b c.tar"
    static let object = StoredObject(key: "boutique/old+1.tar", size: 9 << 20, etag: "\"old\"", version: "v+1")

    let stop = StopFlag.bounded()
    let recorder = LogRecorder()

    static func error(_ status: Int, _ code: String, headers: String = "{}") -> String {
        S3StoreTests.error(status, code, headers: headers)
    }

    static let slow = error(503, "SlowDown")
    static let reset = #"{"close":"reset"}"#
    static let created = S3StoreTests.answer(
        "<InitiateMultipartUploadResult><UploadId>up/1+2</UploadId></InitiateMultipartUploadResult>")
    static let completed =
        #"{"status":200,"headers":{"x-amz-version-id":"v2"},"body":"  \n <?xml version=\"1.0\"?><CompleteMultipartUploadResult><ETag>&quot;all-2&quot;</ETag></CompleteMultipartUploadResult>"}"#
    static let copied = S3StoreTests.answer(
        "<CopyPartResult><ETag>&quot;c&quot;</ETag><ChecksumSHA256>Y29w</ChecksumSHA256></CopyPartResult>")
    static let stored = #"{"status":200,"headers":{"ETag":"\"p\""}}"#
    static let none = #"{"status":404}"#

    /// What HEAD says of an object.
    static func head(_ size: Int, etag: String = "all-2", token: String? = nil) -> String {
        let more = token.map { ",\"x-amz-meta-amorce-upload\":\"\($0)\"" } ?? ""
        return #"{"status":200,"headers":{"Content-Length":"\#(size)","ETag":"\"\#(etag)\""\#(more)}}"#
    }

    func server(
        post: [String] = [], put: [String] = [], head: [String] = [], get: [String] = [], delete: [String] = []
    ) throws -> FaultServer {
        try FaultServer([
            "POST " + Self.path: .init(steps: post), "PUT " + Self.path: .init(steps: put),
            "HEAD " + Self.path: .init(steps: head), "GET " + Self.path: .init(steps: get),
            "DELETE " + Self.path: .init(steps: delete),
        ])
    }

    func store(
        _ server: FaultServer, _ provider: any CredentialProvider = ListedCredentials(["AK1", "AK2", "AK3"])
    ) throws -> S3Store {
        var retry = RetryPolicy()
        retry.firstPause = .milliseconds(2)
        retry.longestPause = .milliseconds(5)
        retry.attempts = 4
        let options = StoreOptions(region: "eu-west-1", endpoint: server.url, environment: [:], retry: retry)
        return try S3Store(
            bucket: "acme", options: options, credentials: provider, transport: CurlTransport(environment: [:]),
            log: recorder.log)
    }

    func begin(_ server: FaultServer) throws -> any ObjectUpload {
        try store(server).beginUpload(key: Self.key, stop: stop)
    }

    /// Two parts of three and two bytes.
    func upload(_ server: FaultServer) throws -> any ObjectUpload {
        let upload = try begin(server)
        try upload.send(part: 2, bytes: [4, 5])
        try upload.send(part: 1, bytes: [1, 2, 3])
        return upload
    }

    func seen(_ server: FaultServer, _ method: String) throws -> [FaultServer.Seen] {
        try server.requests().filter { $0.method == method }
    }

    // MARK: as it should be

    @Test("an upload in parts: every request as S3 wants it, and the object pinned")
    func whole() throws {
        let server = try server(
            post: [Self.created, Self.completed], put: [Self.stored, Self.stored], head: [Self.none])
        let upload = try upload(server)
        #expect(
            try upload.complete() == StoredObject(key: Self.key, size: 5, etag: "\"all-2\"", version: "v2"))
        upload.abort()
        let all = try server.requests()
        #expect(all.map(\.method) == ["HEAD", "POST", "PUT", "PUT", "HEAD", "POST", "HEAD"])
        #expect(all[1].target == Self.path + "?uploads=")
        #expect(all[1].header("x-amz-checksum-algorithm") == "SHA256")
        #expect(all[1].header("x-amz-meta-amorce-upload")?.count == 32)
        #expect(all[2].target == Self.path + "?partNumber=2&uploadId=up%2F1%2B2")
        #expect(all[3].target == Self.path + "?partNumber=1&uploadId=up%2F1%2B2")
        #expect(all[3].body == "\u{1}\u{2}\u{3}")
        #expect(
            all[3].header("x-amz-checksum-sha256") == Data(Digest.sha256([1, 2, 3] as [UInt8])).base64EncodedString())
        #expect(all[3].header("X-Amz-Content-Sha256") == Digest.sha256([1, 2, 3] as [UInt8]).hex)
        #expect(all.allSatisfy { $0.header("Expect") == nil && $0.header("Authorization") != nil })
        #expect(all[5].header("If-None-Match") == "*")
        let document = try XMLReader.parse(Array(all[5].body.utf8))
        #expect(document.children("Part").map { $0.text(of: "PartNumber") } == ["1", "2"])
        #expect(document.children("Part").map { $0.text(of: "ETag") } == ["\"p\"", "\"p\""])
        #expect(
            document.children("Part").first?.text(of: "ChecksumSHA256") == all[3].header("x-amz-checksum-sha256"))
    }

    @Test("what is there in the end is looked at: its ETag counts, and a part that was dropped does not pass")
    func seenAfterwards() throws {
        func complete(_ head: String) throws -> StoredObject {
            let server = try server(
                post: [Self.created, Self.completed], put: [Self.stored, Self.stored],
                head: [Self.none, Self.none, head])
            return try upload(server).complete()
        }
        #expect(
            try complete(Self.head(5, etag: "other"))
                == StoredObject(key: Self.key, size: 5, etag: "\"other\"", version: "v2"))
        // Another writer's, by now, whatever its size: a store that heeds no conditions has let both through.
        for size in [5, 9] {
            #expect(throws: StoreConflict(object: Self.shown)) { try complete(Self.head(size, token: "other")) }
        }
        let error = try #require(throws: StoreError.self) { try complete(Self.head(3)) }
        #expect("\(error)".contains("3 bytes in place of the 5"))
    }

    @Test("a copied part names its source, its version and its state; the whole of an object needs no range")
    func copy() throws {
        let server = try server(
            post: [Self.created, Self.completed], put: [Self.copied, Self.copied], head: [Self.none])
        let upload = try begin(server)
        try upload.copy(part: 1, from: Self.object, range: 5..<6_000_000)
        let plain = StoredObject(key: "a", size: 10, etag: "\"e\"")
        try upload.copy(part: 2, from: plain, range: 0..<10)
        #expect(try upload.complete().size == 5_999_995 + 10)
        let puts = try seen(server, "PUT")
        #expect(puts[0].header("x-amz-copy-source") == "acme/boutique/old%2B1.tar?versionId=v%2B1")
        #expect(puts[0].header("x-amz-copy-source-if-match") == "\"old\"")
        #expect(puts[0].header("x-amz-copy-source-range") == "bytes=5-5999999")
        #expect(puts[1].header("x-amz-copy-source") == "acme/a")
        #expect(puts[1].header("x-amz-copy-source-range") == nil)
        let last = try #require(try seen(server, "POST").last)
        #expect(last.body.contains("<ChecksumSHA256>Y29w</ChecksumSHA256>"))
    }

    @Test("a small object: one request, with its checksum, under a free name")
    func put() throws {
        let server = try server(put: [Self.stored])
        try store(server).put(key: Self.key, bytes: Array("told".utf8), stop: stop)
        let all = try server.requests()
        // Many servers ignore the condition: any but Amazon's is asked before.
        #expect(all.map(\.method) == ["HEAD", "PUT"])
        #expect(all[1].body == "told")
        #expect(all[1].header("If-None-Match") == "*")
        #expect(
            all[1].header("x-amz-checksum-sha256") == Data(Digest.sha256(Array("told".utf8))).base64EncodedString())
    }

    @Test("more than libcurl's buffer arrives as it was, also after a break in the middle of it")
    func large() throws {
        let bytes = seededBytes(400_000)
        let broken = [#"{"take":300000}"#, #"{"take":1}"#, #"{"take":399999,"how":"fin"}"#]
        let server = try server(post: [Self.created], put: broken + [Self.stored], head: [Self.none])
        try begin(server).send(part: 1, bytes: bytes)
        let bodies = try seen(server, "PUT").map { $0.body.unicodeScalars.map { UInt8($0.value) } }
        #expect(bodies == [Array(bytes[..<300_000]), [bytes[0]], Array(bytes[..<399_999]), bytes])
    }

    // MARK: parts

    @Test(
        "a part is sent again after a broken connection, a refusal for now and damage on the way",
        arguments: [
            slow, error(500, "InternalError"), error(400, "RequestTimeout"), error(400, "BadDigest"),
            error(400, "XAmzContentSHA256Mismatch"), reset, #"{"close":"fin"}"#, #"{"raw":"HTTP/1.1 200 OK\r\nCont"}"#,
            #"{"status":200,"headers":{"ETag":"\"p\"","x-amz-checksum-sha256":"b3RoZXI="}}"#,
        ])
    func again(step: String) throws {
        let server = try server(post: [Self.created], put: [step, step, Self.stored], head: [Self.none])
        try begin(server).send(part: 1, bytes: [1])
        #expect(try seen(server, "PUT").map(\.body) == ["\u{1}", "\u{1}", "\u{1}"])
    }

    @Test("not for ever, and then the reason is told; others go on")
    func hopeless() throws {
        let server = try server(
            post: [Self.created], put: Array(repeating: Self.slow, count: 4) + [Self.stored], head: [Self.none])
        let upload = try begin(server)
        #expect(
            throws: StoreError.unavailable(object: Self.shown, status: 503, code: "SlowDown", requestID: "REQ1")
        ) { try upload.send(part: 1, bytes: [1]) }
        try upload.send(part: 2, bytes: [1])
        #expect(throws: UploadError.missingPart(object: Self.shown, part: 1)) { try upload.complete() }
    }

    @Test("credentials that grow old between two parts are asked for anew")
    func expired() throws {
        let provider = ListedCredentials(["AK1", "AK2"])
        let server = try server(
            post: [Self.created], put: [Self.stored, Self.error(400, "ExpiredToken"), Self.stored], head: [Self.none])
        let upload = try store(server, provider).beginUpload(key: Self.key, stop: stop)
        try upload.send(part: 1, bytes: [1])
        try upload.send(part: 2, bytes: [2])
        #expect(provider.invalidations == 1)
        #expect(try seen(server, "PUT").last?.header("Authorization")?.contains("AK2") == true)
    }

    @Test("an upload that the store forgot is to be begun again; a page that is no answer is refused")
    func lost() throws {
        let server = try server(
            post: [Self.created],
            put: [Self.error(404, "NoSuchUpload")] + Array(repeating: #"{"status":200,"body":"<html>"}"#, count: 4),
            head: [Self.none])
        let upload = try begin(server)
        #expect(throws: StoreError.uploadLost(object: Self.shown, reason: "NoSuchUpload, request REQ1: told")) {
            try upload.send(part: 1, bytes: [1])
        }
        let error = try #require(throws: StoreError.self) { try upload.send(part: 1, bytes: [1]) }
        #expect(error.isUnreachable)
        let portal = try self.server(post: [#"{"status":200,"body":"<html>"}"#], head: [Self.none])
        #expect(throws: StoreError.self) { try begin(portal) }
    }

    @Test("what breaks the rules is not sent")
    func rules() throws {
        let server = try server(post: [Self.created], head: [Self.none])
        let upload = try begin(server)
        for part in [0, 10_001] {
            #expect(throws: UploadError.self) { try upload.send(part: part, bytes: [1]) }
            #expect(throws: UploadError.self) { try upload.copy(part: part, from: Self.object, range: 0..<5) }
        }
        #expect(throws: UploadError.self) { try upload.copy(part: 1, from: Self.object, range: 0..<(5 << 30) + 1) }
        #expect(throws: UploadError.missingPart(object: Self.shown, part: 1)) { try upload.complete() }
        #expect(try seen(server, "PUT").isEmpty)
    }

    @Test(
        "an object to copy from that is gone or another one is told apart from everything else",
        arguments: [
            (200, "PreconditionFailed"), (412, "PreconditionFailed"), (404, "NoSuchKey"), (200, "NoSuchVersion"),
        ])
    func copySourceGone(status: Int, code: String) throws {
        let server = try server(post: [Self.created], put: [Self.error(status, code)], head: [Self.none])
        let upload = try begin(server)
        #expect(throws: CopySourceGone(object: "s3://acme/boutique/old+1.tar")) {
            try upload.copy(part: 1, from: Self.object, range: 0..<10)
        }
    }

    @Test(
        "an error inside 200 to a copied part is one, and what it means is told",
        arguments: [
            (
                error(200, "NoSuchUpload"),
                StoreError.uploadLost(object: "s3://acme/boutique/b c.tar", reason: "NoSuchUpload, request REQ1: told")
            ),
            (
                error(200, "AccessDenied"),
                .accessDenied(
                    action: "s3:GetObjectVersion", object: "s3://acme/boutique/old+1.tar", code: "AccessDenied",
                    requestID: "REQ1", credentials: "the credentials of test")
            ),
            (
                error(200, "InvalidRequest"),
                .cannotUpload(object: "s3://acme/boutique/old+1.tar", reason: "InvalidRequest, request REQ1: told")
            ),
        ])
    func copyError(step: String, expected: StoreError) throws { try copyFails(step, expected) }

    @Test("a store that copies no parts", arguments: [error(501, "NotImplemented"), stored])
    func noCopies(step: String) throws {
        try copyFails(
            step,
            CopySourceGone(object: "s3://acme/boutique/old+1.tar", reason: "the store copies no parts of it"))
    }

    private func copyFails(_ step: String, _ expected: some Error & Equatable) throws {
        // Two that pass come first: S3's own trouble inside 200, and an answer that ends after its blanks.
        let server = try server(
            post: [Self.created], put: [Self.error(200, "InternalError"), S3StoreTests.answer("   "), step],
            head: [Self.none])
        let upload = try begin(server)
        #expect(throws: expected) { try upload.copy(part: 1, from: Self.object, range: 5..<6_000_000) }
        #expect(try seen(server, "PUT").count == 3)
    }

    // MARK: the end of an upload

    @Test(
        "an error inside 200, blanks before it, is one: asked again as long as it may pass",
        arguments: [error(200, "InternalError"), slow])
    func completeError(step: String) throws {
        let blank = step.replacingOccurrences(of: #""body":""#, with: #""body":"  \n "#)
        let server = try server(
            post: [Self.created, blank, Self.completed], put: [Self.stored, Self.stored], head: [Self.none])
        #expect(try upload(server).complete().etag == "\"all-2\"")
        let refused = try self.server(
            post: [
                Self.created,
                Self.error(200, "InvalidPart").replacingOccurrences(of: #""body":""#, with: #""body":"\n"#),
            ],
            put: [Self.stored, Self.stored], head: [Self.none, Self.none], delete: [#"{"status":204}"#])
        let upload = try upload(refused)
        #expect(throws: StoreError.cannotUpload(object: Self.shown, reason: "InvalidPart, request REQ1: told")) {
            try upload.complete()
        }
        upload.abort()
        upload.abort()
        #expect(try seen(refused, "DELETE").map(\.target) == [Self.path + "?uploadId=up%2F1%2B2"])
    }

    @Test(
        "parts that the store does not know as they were sent are an error that says so",
        arguments: ["InvalidPart", "EntityTooSmall"])
    func wrongPart(code: String) throws {
        let server = try server(
            post: [Self.created, Self.error(400, code)], put: [Self.stored, Self.stored], head: [Self.none])
        #expect(throws: StoreError.cannotUpload(object: Self.shown, reason: code + ", request REQ1: told")) {
            try upload(server).complete()
        }
        #expect(try seen(server, "POST").count == 2)
    }

    @Test("a taken name: known at the beginning, or found at the end; nothing is replaced")
    func taken() throws {
        let early = try server(head: [Self.head(9)])
        #expect(throws: StoreConflict(object: Self.shown)) { try begin(early) }
        #expect(try early.requests().count == 1)
        let late = try server(
            post: [Self.created, Self.error(412, "PreconditionFailed")], put: [Self.stored, Self.stored],
            head: [#"{"status":403}"#])
        #expect(throws: StoreConflict(object: Self.shown)) { try upload(late).complete() }
        let ignoring = try server(put: [Self.stored], head: [Self.head(9)])
        #expect(throws: StoreConflict(object: Self.shown)) {
            try store(ignoring).put(key: Self.key, bytes: [1], stop: stop)
        }
        #expect(try seen(ignoring, "PUT").isEmpty)
        let small = try server(put: [Self.error(412, "PreconditionFailed")])
        #expect(throws: StoreConflict(object: Self.shown)) {
            try store(small).put(key: Self.key, bytes: [1], stop: stop)
        }
        #expect(try seen(small, "PUT").count == 1)
    }

    @Test(
        "an answer that got lost: what is there afterwards decides",
        arguments: [reset, #"{"close":"fin"}"#, error(500, "InternalError"), #"{"raw":"HTTP/1.1 200 OK\r\nConte"}"#],
        [error(404, "NoSuchUpload"), error(412, "PreconditionFailed")])
    func lostAnswer(first: String, second: String) throws {
        func result(_ head: String, get: [String] = []) throws -> Result<StoredObject, any Error> {
            let server = try server(
                post: [Self.created, first, second], put: [Self.stored, Self.stored],
                head: [Self.none, Self.none, head], get: get)
            let upload = try upload(server)
            return Result { try upload.complete() }
        }
        #expect(try result(Self.head(5)).get() == StoredObject(key: Self.key, size: 5, etag: "\"all-2\""))
        // Another one's: by its size, by its parts, by its writer.
        for head in [Self.head(6), Self.head(5, etag: "all-3"), Self.head(5, etag: "x"), Self.head(5, token: "other")] {
            #expect(throws: StoreConflict(object: Self.shown)) { try result(head).get() }
        }
        let isLost = second.contains("NoSuchUpload")
        if isLost {
            #expect(throws: StoreError.uploadLost(object: Self.shown, reason: "NoSuchUpload, request REQ1: told")) {
                try result(Self.none, get: [Self.error(404, "NoSuchKey")]).get()
            }
        }
        // Nobody may look.
        let error = try #require(throws: StoreError.self) {
            try result(#"{"status":403}"#, get: [Self.error(403, "AccessDenied")]).get()
        }
        guard case .outcomeUnknown = error else {
            Issue.record("\(error)")
            return
        }
        #expect("\(error)".contains("s3:GetObject"))
    }

    @Test("our own mark on the object decides before its ETag does")
    func token() throws {
        // The canned server cannot echo the mark: the proxy between adds it.
        let server = try server(
            post: [Self.created, Self.reset, Self.error(404, "NoSuchUpload")], put: [Self.stored, Self.stored],
            head: [Self.none, Self.none, Self.head(5, etag: "opaque")])
        let echo = EchoingToken(CurlTransport(environment: [:]))
        let options = StoreOptions(region: "eu-west-1", endpoint: server.url, environment: [:])
        let store = try S3Store(
            bucket: "acme", options: options, credentials: ListedCredentials(["AK"]), transport: echo, log: .silent)
        let upload = try store.beginUpload(key: Self.key, stop: stop)
        try upload.send(part: 1, bytes: [1, 2, 3])
        try upload.send(part: 2, bytes: [4, 5])
        #expect(try upload.complete().etag == "\"opaque\"")
    }

    @Test("no answer at all, ever: the last error is told when the object is not there")
    func neverAnswered() throws {
        let server = try server(
            post: [Self.created] + Array(repeating: Self.reset, count: 4), put: [Self.stored, Self.stored],
            head: [Self.none, Self.none], get: [Self.error(404, "NoSuchKey")])
        let error = try #require(throws: StoreError.self) { try upload(server).complete() }
        guard case .unreachable(Self.shown, _) = error else {
            Issue.record("\(error)")
            return
        }
    }

    @Test("two writers at once: S3 makes the later one begin again")
    func concurrent() throws {
        let conflict = Self.error(409, "ConditionalRequestConflict")
        let server = try server(
            post: [Self.created, conflict], put: [Self.stored, Self.stored], head: [Self.none])
        #expect(
            throws: StoreError.uploadLost(
                object: Self.shown, reason: "ConditionalRequestConflict, request REQ1: told")
        ) { try upload(server).complete() }
        let small = try self.server(put: [conflict, conflict, Self.stored])
        try store(small).put(key: Self.key, bytes: [1], stop: stop)
        #expect(try seen(small, "PUT").count == 3)
    }

    @Test("a server without conditional writes: the name is looked for before, and it is remembered")
    func noConditions() throws {
        let unknown = Self.error(501, "NotImplemented")
        let free = Self.error(404, "NoSuchKey")
        let server = try server(
            post: [Self.created, unknown, Self.completed], put: [Self.stored, Self.stored, Self.stored],
            head: Array(repeating: Self.none, count: 5), get: [free, free])
        let store = try store(server)
        let upload = try store.beginUpload(key: Self.key, stop: stop)
        try upload.send(part: 1, bytes: [1])
        try upload.send(part: 2, bytes: [2])
        #expect(try upload.complete().etag == "\"all-2\"")
        try store.put(key: Self.key, bytes: [1], stop: stop)
        // Another writer found the name free at the same time.
        let both = try self.server(
            post: [Self.created, unknown, Self.completed], put: [Self.stored, Self.stored],
            head: [Self.none, Self.none, Self.none, Self.head(5, token: "other")], get: [free])
        #expect(throws: StoreConflict(object: Self.shown)) { try self.upload(both).complete() }
        let all = try server.requests()
        #expect(
            all.map(\.method) == [
                "HEAD", "POST", "PUT", "PUT", "HEAD", "POST", "HEAD", "GET", "POST", "HEAD", "HEAD", "GET", "PUT",
            ])
        #expect(all.compactMap { $0.header("If-None-Match") }.count == 1)
        let taken = try self.server(put: [unknown, Self.stored], head: [Self.none, Self.head(9)])
        #expect(throws: StoreConflict(object: Self.shown)) {
            try self.store(taken).put(key: Self.key, bytes: [1], stop: stop)
        }
        #expect(try taken.requests().map(\.method) == ["HEAD", "PUT", "HEAD"])
        // It was not the condition that the server does not know.
        let foreign = try self.server(
            put: Array(repeating: unknown, count: 4), head: Array(repeating: Self.none, count: 9),
            get: [free, free, free])
        let other = try self.store(foreign)
        #expect(throws: StoreError.cannotUpload(object: Self.shown, reason: "NotImplemented, request REQ1: told")) {
            try other.put(key: Self.key, bytes: [1], stop: stop)
        }
        #expect(throws: StoreError.self) { try other.put(key: Self.key, bytes: [1], stop: stop) }
        #expect(try foreign.requests().compactMap { $0.header("If-None-Match") }.count == 2)
    }

    // MARK: small objects

    @Test("a small object whose answer got lost: its bytes decide", arguments: [reset, error(500, "InternalError")])
    func lostPut(first: String) throws {
        let refused = Self.error(412, "PreconditionFailed")
        func put(_ steps: [String], _ get: [String]) throws {
            let server = try server(put: steps, get: get)
            try store(server).put(key: Self.key, bytes: Array("told".utf8), stop: stop)
        }
        func there(_ text: String) -> String { #"{"status":200,"headers":{"ETag":"\"e\""},"body":"\#(text)"}"# }
        try put([first, refused], [there("told")])
        try put([first, Self.stored], [])
        try put([first, first, first, first], [there("told")])
        for other in ["tolt", "told!", ""] {
            #expect(throws: StoreConflict(object: Self.shown)) { try put([first, refused], [there(other)]) }
        }
        #expect(throws: StoreError.self) {
            try put([first, first, first, first], [Self.error(404, "NoSuchKey")])
        }
        let error = try #require(throws: StoreError.self) {
            try put([first, refused], [Self.error(403, "AccessDenied")])
        }
        guard case .outcomeUnknown = error else {
            Issue.record("\(error)")
            return
        }
    }

    // MARK: rights

    @Test("a refusal names the right that is missing, and no other")
    func denied() throws {
        let no = Self.error(403, "AccessDenied")
        func denied(_ action: String) -> StoreError {
            .accessDenied(
                action: action, object: Self.shown, code: "AccessDenied", requestID: "REQ1",
                credentials: "the credentials of test")
        }
        let server = try server(post: [no, Self.created, no], put: [no, Self.stored, no], delete: [no])
        let store = try store(server)
        #expect(throws: denied("s3:PutObject")) { try begin(server) }
        let upload = try store.beginUpload(key: Self.key, stop: stop)
        #expect(throws: denied("s3:PutObject")) { try upload.send(part: 1, bytes: [1]) }
        try upload.send(part: 1, bytes: [1])
        #expect(throws: denied("s3:PutObject")) { try upload.complete() }
        #expect(throws: denied("s3:PutObject")) { try store.put(key: Self.key, bytes: [1], stop: stop) }
        #expect(throws: denied("s3:DeleteObject")) { try store.remove(key: Self.key, stop: stop) }
        #expect(!"\(denied("s3:PutObject"))".contains("ListBucket"))
    }

    @Test("a role that may only put gets along, and what it may not give up is told in detail alone")
    func putOnly() throws {
        let no = Self.error(403, "AccessDenied")
        let server = try server(
            post: [Self.created, Self.completed, Self.created], put: [Self.stored, Self.stored],
            head: Array(repeating: #"{"status":403}"#, count: 3), delete: [no])
        #expect(try upload(server).complete().size == 5)
        let upload = try begin(server)
        upload.abort()
        #expect(throws: UploadError.closed(object: Self.shown)) { try upload.send(part: 1, bytes: [1]) }
        #expect(throws: UploadError.closed(object: Self.shown)) { try upload.complete() }
        #expect(recorder.lines.count == 1)
        #expect(
            recorder.lines.first?.hasPrefix("detail: ") == true && recorder.text.contains("s3:AbortMultipartUpload"))
    }

    @Test(
        "removed, or not there, is the same",
        arguments: [#"{"status":204}"#, #"{"status":404}"#, error(404, "NoSuchKey")])
    func remove(step: String) throws {
        let server = try server(delete: [step])
        try store(server).remove(key: Self.key, stop: stop)
        let missing = try self.server(delete: [Self.error(404, "NoSuchBucket")])
        #expect(throws: StoreError.noSuchBucket(bucket: "acme", requestID: "REQ1")) {
            try store(missing).remove(key: Self.key, stop: stop)
        }
    }

    @Test("a stop ends an upload, and it can still be given up")
    func stopped() throws {
        let server = try server(
            post: [Self.created], put: Array(repeating: Self.slow, count: 9), head: [Self.none],
            delete: [#"{"status":204}"#])
        let flag = StopFlag()
        let upload = try store(server).beginUpload(key: Self.key, stop: flag)
        flag.raise(signal: SIGTERM)
        #expect(throws: StopReason.signal(SIGTERM)) { try upload.send(part: 1, bytes: [1]) }
        upload.abort()
        #expect(try seen(server, "DELETE").count == 1)
    }

    @Test("what can be written to is made from its location, and a web server cannot")
    func make() throws {
        func make(_ url: String) throws -> any WritableStore {
            try Stores.makeWritable(
                StoreLocation(parsing: url), options: StoreOptions(region: "eu-west-1", environment: [:]),
                credentials: ListedCredentials(["AK"]), transport: CurlTransport(environment: [:]), log: .silent)
        }
        #expect(
            try make("s3://acme/boutique/").partRules == PartRules(smallest: 5 << 20, largest: 5 << 30, most: 10_000))
        #expect(try make("file:///var/backups/").location == "file:///var/backups/")
        let error = try #require(throws: StoreError.self) { try make("https://example.test/a?MADE-UP-SECRET") }
        #expect(error.isSettings && "\(error)".contains("can only be read from") && !"\(error)".contains("SECRET"))
    }
}

/// Shows on every HEAD the mark that the upload was begun with.
private final class EchoingToken: HTTPTransport {
    private let next: any HTTPTransport
    private let told = Mutex<String?>(nil)

    init(_ next: any HTTPTransport) { self.next = next }

    func perform(_ request: HTTPRequest, stop: StopFlag) throws -> HTTPResponse {
        let name = "x-amz-meta-amorce-upload"
        if let token = request.headers.first(where: { $0.name == name })?.value { told.withLock { $0 = token } }
        var response = try next.perform(request, stop: stop)
        if request.method == "HEAD", let token = told.withLock({ $0 }) { response.headers.append((name, token)) }
        return response
    }
}
