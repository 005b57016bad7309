import CloudPlatform
import Foundation
import HostSystem
import Synchronization
import TestSupport
import Testing

/// Credentials from a list: each `invalidate` moves to the next.
final class ListedCredentials: CredentialProvider {
    private let state = Mutex(0)
    private let keys: [String?]

    init(_ keys: [String?]) { self.keys = keys }

    var invalidations: Int { state.withLock { $0 } }

    func credentials(stop: StopFlag) throws -> Credentials? {
        keys[min(invalidations, keys.count - 1)].map {
            Credentials(accessKey: $0, secretKey: Secret("MADE-UP-SECRET"), origin: "test")
        }
    }

    func invalidate() { state.withLock { $0 += 1 } }
}

/// S3's answers, canned, one after the other: what the store makes of each.
@Suite struct S3StoreTests {
    static let key = "/acme/boutique/a.tar"

    let scratch: ScratchDirectory
    let bytes = seededBytes(700_000)
    let file: String
    let stop = StopFlag.bounded()

    init() throws {
        scratch = try ScratchDirectory()
        file = try scratch.write("object", bytes)
    }

    static func error(_ status: Int, _ code: String, _ more: String = "", headers: String = "{}") -> String {
        let body =
            "<?xml version=\"1.0\"?><Error><Code>\(code)</Code><Message>told</Message>\(more)<RequestId>REQ1</RequestId></Error>"
        return #"{"status":\#(status),"headers":\#(headers),"body":\#(FaultServer.quoted(body))}"#
    }

    static func page(_ keys: [String], next: String? = nil) -> String {
        let entries = keys.map {
            "<Contents><Key>\($0)</Key><LastModified>2026-11-24T03:00:00.000Z</LastModified><ETag>&quot;e&quot;</ETag><Size>7</Size></Contents>"
        }.joined()
        let more =
            next.map { "<IsTruncated>true</IsTruncated><NextContinuationToken>\($0)</NextContinuationToken>" }
            ?? "<IsTruncated>false</IsTruncated>"
        return answer(
            "<ListBucketResult xmlns=\"u\"><EncodingType>url</EncodingType>\(more)\(entries)</ListBucketResult>")
    }

    static func answer(_ body: String, _ status: Int = 200) -> String {
        #"{"status":\#(status),"body":\#(FaultServer.quoted(body))}"#
    }

    func store(
        _ server: FaultServer, _ provider: any CredentialProvider = ListedCredentials(["AK1", "AK2", "AK3"]),
        isAnonymous: Bool = false, clock: @escaping @Sendable () -> Int64 = { Host.now }
    ) throws -> S3Store {
        var retry = RetryPolicy()
        retry.firstPause = .milliseconds(2)
        retry.longestPause = .milliseconds(5)
        retry.attempts = 4
        let options = StoreOptions(
            region: "eu-west-1", endpoint: server.url, isAnonymous: isAnonymous, memory: ByteCount(1 << 20),
            environment: [:],
            retry: retry)
        return try S3Store(
            bucket: "acme", options: options, credentials: provider, transport: CurlTransport(environment: [:]),
            log: .silent,
            clock: clock)
    }

    func listing(_ steps: [String]) throws -> FaultServer { try FaultServer(["/acme/": .init(steps: steps)]) }

    func object(_ steps: [String] = []) throws -> FaultServer {
        try FaultServer([
            "GET " + Self.key: .init(
                file: file, etag: "\"one\"", modified: "Tue, 24 Nov 2026 03:00:00 GMT", steps: steps),
            "HEAD " + Self.key: .init(file: file, etag: "\"one\"", modified: "Tue, 24 Nov 2026 03:00:00 GMT"),
        ])
    }

    @Test("all pages, keys decoded")
    func pages() throws {
        let server = try listing([
            Self.page(["boutique/a", "boutique/b+c%2Bd"], next: "t+1/"), Self.page(["boutique/%C3%A9"]),
        ])
        let found = try store(server).list(prefix: "boutique/", stop: stop)
        #expect(found.map(\.key) == ["boutique/a", "boutique/b c+d", "boutique/é"])
        #expect(found[0] == StoredObject(key: "boutique/a", size: 7, modified: 1_795_489_200, etag: "\"e\""))
        let targets = try server.requests().map(\.target)
        #expect(targets[0] == "/acme/?encoding-type=url&list-type=2&max-keys=1000&prefix=boutique%2F")
        #expect(targets[1].hasPrefix("/acme/?continuation-token=t%2B1%2F&"))
    }

    @Test("a listing that repeats its token has no end")
    func loop() throws {
        let server = try listing(Array(repeating: Self.page(["boutique/a"], next: "same"), count: 9))
        #expect(throws: StoreError.endlessListing(location: "s3://acme/boutique/")) {
            try store(server).list(prefix: "boutique/", stop: stop)
        }
    }

    @Test(
        "what is no listing is refused",
        arguments: [
            answer("<html><body>Please log in</body></html>"), answer(""), answer("<ListBucketResult><Contents>"),
            answer("<!DOCTYPE l [<!ENTITY a 'aaaa'><!ENTITY b '&a;&a;'>]><ListBucketResult>&b;</ListBucketResult>"),
            answer("<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>"),
            answer("<ListBucketResult><Contents><Key>elsewhere</Key></Contents></ListBucketResult>"),
            answer("<ListBucketResult><Contents><Size>1</Size></Contents></ListBucketResult>"),
        ])
    func noListing(step: String) throws {
        let server = try listing([step])
        let error = try #require(throws: StoreError.self) { try store(server).list(prefix: "boutique/", stop: stop) }
        guard case .unexpectedAnswer = error else {
            Issue.record("\(error)")
            return
        }
        #expect(error.isUnreachable)
    }

    @Test("an error inside 200 is an error; slow down is waited for, not for ever")
    func later() throws {
        let slow = Self.error(503, "SlowDown")
        let inside = Self.error(200, "InternalError")
        let server = try listing([slow, inside, Self.error(500, "InternalError"), Self.page(["boutique/a"])])
        #expect(try store(server).list(prefix: "boutique/", stop: stop).count == 1)
        let hopeless = try listing(Array(repeating: slow, count: 9))
        #expect(
            throws: StoreError.unavailable(object: "s3://acme/", status: 503, code: "SlowDown", requestID: "REQ1")
        ) { try store(hopeless).list(prefix: "", stop: stop) }
        #expect(try hopeless.requests().count == 4)
    }

    @Test("a refusal is told at once, with S3's code, the request and the missing right")
    func denied() throws {
        let server = try listing([Self.error(403, "AccessDenied")])
        let error = try #require(throws: StoreError.self) { try store(server).list(prefix: "", stop: stop) }
        #expect(
            error
                == .accessDenied(
                    action: "s3:ListBucket", object: "s3://acme/", code: "AccessDenied", requestID: "REQ1",
                    credentials: "the credentials of test"))
        #expect(error.isPermission)
        #expect("\(error)".contains("REQ1") && "\(error)".contains("s3:ListBucket"))
        #expect(try server.requests().count == 1)
        let missing = try listing([Self.error(404, "NoSuchBucket")])
        #expect(throws: StoreError.noSuchBucket(bucket: "acme", requestID: "REQ1")) {
            try store(missing).list(prefix: "", stop: stop)
        }
    }

    @Test(
        "an object: pinned, absent, denied, and why",
        arguments: [
            (error(404, "NoSuchKey"), nil),
            (error(404, "NoSuchBucket"), StoreError.noSuchBucket(bucket: "acme", requestID: "REQ1")),
            (
                error(403, "AccessDenied"),
                .accessDenied(
                    action: "s3:GetObject", object: "s3://acme/boutique/a.tar", code: "AccessDenied", requestID: "REQ1",
                    credentials: "the credentials of test")
            ),
        ])
    func stat(step: String, expected: StoreError?) throws {
        let good = try object()
        let pinned = try store(good).stat(key: "boutique/a.tar", stop: stop)
        #expect(
            pinned
                == StoredObject(key: "boutique/a.tar", size: 700_000, modified: 1_795_489_200, etag: "\"one\""))
        let server = try FaultServer([
            "HEAD " + Self.key: .init(steps: [#"{"status":403}"#]), "GET " + Self.key: .init(steps: [step]),
        ])
        let store = try store(server)
        if let expected {
            #expect(throws: expected) { try store.stat(key: "boutique/a.tar", stop: stop) }
        } else {
            #expect(try store.stat(key: "boutique/a.tar", stop: stop) == nil)
            #expect(try store.read(key: "boutique/none", limit: 9, stop: stop) == nil)
        }
    }

    @Test("a captive portal's page is no object")
    func captive() throws {
        let page = #"{"status":200,"headers":{"Content-Type":"text/html"},"body":"<html>Please log in</html>"}"#
        let server = try FaultServer([Self.key: .init(steps: [page, page, page])])
        let store = try store(server)
        #expect(throws: StoreError.self) { try store.stat(key: "boutique/a.tar", stop: stop) }
        #expect(throws: StoreError.self) { try store.read(key: "boutique/a.tar", limit: 1000, stop: stop) }
        let object = StoredObject(key: "boutique/a.tar", size: 26, etag: "\"one\"")
        let error = try #require(throws: StoreError.self) {
            try store.open(object, memory: ByteCount(1 << 20), stop: stop) { _ in }.readAll()
        }
        guard case .unexpectedAnswer = error else {
            Issue.record("\(error)")
            return
        }
    }

    @Test("a small object whole, within its limit")
    func read() throws {
        let server = try object()
        #expect(try store(server).read(key: "boutique/a.tar", limit: 700_000, stop: stop) == bytes)
        #expect(throws: StoreError.tooLarge(object: "s3://acme/boutique/a.tar", limit: 699_999)) {
            try store(server).read(key: "boutique/a.tar", limit: 699_999, stop: stop)
        }
    }

    @Test(
        "a wrong region is corrected once, and only by the region's name",
        arguments: [
            error(301, "PermanentRedirect", headers: #"{"x-amz-bucket-region":"eu-west-3"}"#),
            error(301, "PermanentRedirect", "<Region>eu-west-3</Region>", headers: #"{"Location":"http://OTHER/"}"#),
            error(400, "AuthorizationHeaderMalformed", "<Region>eu-west-3</Region>"),
            error(
                307, "TemporaryRedirect", headers: #"{"x-amz-bucket-region":"eu-west-3","Location":"http://OTHER/"}"#),
        ])
    func region(step: String) throws {
        let other = try FaultServer(["/": .init()])
        let told = step.replacingOccurrences(of: "OTHER", with: "127.0.0.1:\(other.port)")
        let server = try listing([told, Self.page(["a"])])
        #expect(try store(server).list(prefix: "", stop: stop).count == 1)
        let signed = try server.requests().compactMap { $0.header("Authorization") }
        #expect(signed.count == 2)
        #expect(signed[0].contains("/eu-west-1/s3/"))
        #expect(signed[1].contains("/eu-west-3/s3/"))
        let again = try listing([told, told.replacingOccurrences(of: "eu-west-3", with: "eu-west-2"), Self.page(["a"])])
        #expect(throws: StoreError.wrongRegion(bucket: "acme", asked: "eu-west-3", told: "eu-west-2")) {
            try store(again).list(prefix: "", stop: stop)
        }
        #expect(try other.requests().isEmpty)
    }

    @Test(
        "a redirect without a region, or into another partition, is not followed",
        arguments: [
            (#"{"status":302,"headers":{"Location":"http://OTHER/acme/"}}"#, true),
            (error(301, "PermanentRedirect", headers: #"{"x-amz-bucket-region":"cn-north-1"}"#), false),
            (error(301, "PermanentRedirect", headers: #"{"x-amz-bucket-region":"evil.example/"}"#), true),
        ])
    func redirected(step: String, isRedirect: Bool) throws {
        let other = try FaultServer(["/": .init()])
        let server = try listing([
            step.replacingOccurrences(of: "OTHER", with: "127.0.0.1:\(other.port)"), Self.page(["a"]),
        ])
        let error = try #require(throws: StoreError.self) { try store(server).list(prefix: "", stop: stop) }
        if isRedirect {
            #expect(error == .redirected(object: "s3://acme/", to: "an unnamed place"))
        } else {
            #expect(error == .wrongRegion(bucket: "acme", asked: "eu-west-1", told: "cn-north-1"))
        }
        #expect(try other.requests().isEmpty)
        #expect(try server.requests().count == 1)
    }

    @Test("a clock that is wrong is corrected once, from the Date header")
    func clock() throws {
        let skewed = Self.error(403, "RequestTimeTooSkewed", headers: #"{"Date":"Tue, 24 Nov 2026 12:00:00 GMT"}"#)
        // Twenty minutes behind the server.
        let server = try listing([skewed, Self.page(["a"])])
        #expect(try store(server, clock: { 1_795_520_400 }).list(prefix: "", stop: stop).count == 1)
        let dates = try server.requests().compactMap { $0.header("X-Amz-Date") }
        #expect(dates == ["20261124T114000Z", "20261124T120000Z"])
        let twice = try listing([skewed, skewed, Self.page(["a"])])
        #expect(throws: StoreError.clockSkew(object: "s3://acme/", seconds: 1200)) {
            try store(twice, clock: { 1_795_520_400 }).list(prefix: "", stop: stop)
        }
        // A false Date on a plain refusal: corrected once, then the refusal is told.
        let denied = Self.error(403, "AccessDenied", headers: #"{"Date":"Tue, 24 Nov 2026 12:00:00 GMT"}"#)
        let plain = try listing([denied, denied, denied])
        let error = try #require(throws: StoreError.self) {
            try store(plain, clock: { 1_795_520_400 }).list(prefix: "", stop: stop)
        }
        #expect(error.isPermission)
        #expect(try plain.requests().count == 2)
    }

    @Test("old credentials are asked for anew once", arguments: ["ExpiredToken", "InvalidAccessKeyId", "InvalidToken"])
    func expired(code: String) throws {
        let refused = Self.error(code == "ExpiredToken" ? 400 : 403, code)
        let provider = ListedCredentials(["AK1", "AK2", "AK3"])
        let server = try listing([refused, Self.page(["a"]), refused, Self.page(["a"]), refused, refused])
        let store = try store(server, provider)
        #expect(try store.list(prefix: "", stop: stop).count == 1)
        #expect(provider.invalidations == 1)
        // Those worked; when they too grow old, fresh ones are asked for again.
        #expect(try store.list(prefix: "", stop: stop).count == 1)
        #expect(provider.invalidations == 2)
        let error = try #require(throws: StoreError.self) { try store.list(prefix: "", stop: stop) }
        #expect(
            error
                == .credentialsRefused(
                    object: "s3://acme/", code: code, requestID: "REQ1", credentials: "the credentials of test"))
        #expect(try server.requests().compactMap { $0.header("Authorization") }.contains { $0.contains("AK2") })
    }

    // One refusal: the server counts requests and knows no keys, so a second one could meet a connection that has fresh ones.
    @Test("credentials that grow old during a download are asked for anew")
    func expiredWhileReading() throws {
        let provider = ListedCredentials(["AK1", "AK2"])
        let refused = Self.error(400, "ExpiredToken")
        let server = try object([refused])
        let store = try store(server, provider)
        let object = StoredObject(key: "boutique/a.tar", size: 700_000, etag: "\"one\"")
        #expect(try store.open(object, memory: ByteCount(1 << 20), stop: stop) { _ in }.readAll() == bytes)
        #expect(provider.invalidations == 1)
    }

    @Test(
        "the pinned bytes or an error that says what happened",
        arguments: [
            (#"{"etag":"\"two\""}"#, StoreError.replaced(object: "s3://acme/boutique/a.tar")),
            (#"{"etag":"\"two\"","ignore-match":true}"#, .replaced(object: "s3://acme/boutique/a.tar")),
            (error(404, "NoSuchKey"), .removed(object: "s3://acme/boutique/a.tar")),
        ])
    func changed(step: String, expected: StoreError) throws {
        let server = try object(["{}"] + Array(repeating: step, count: 30))
        let store = try store(server)
        let pinned = try #require(try store.stat(key: "boutique/a.tar", stop: stop))
        let reader = try store.open(pinned, memory: ByteCount(256 << 10), stop: stop) { _ in }
        #expect(throws: expected) { try reader.readAll() }
    }

    @Test("a version is asked for by its name, and its right is named")
    func version() throws {
        let server = try object([Self.error(403, "AccessDenied")])
        let pinned = StoredObject(key: "boutique/a.tar", size: 10, etag: "\"one\"", version: "v+1")
        let reader = try store(server).open(pinned, memory: ByteCount(1 << 20), stop: stop) { _ in }
        let error = try #require(throws: StoreError.self) { try reader.readAll() }
        #expect("\(error)".contains("s3:GetObjectVersion"))
        #expect(try server.requests()[0].target == Self.key + "?versionId=v%2B1")
    }

    @Test("anonymous requests carry nothing, and no credentials mean anonymous")
    func anonymous() throws {
        let server = try listing([Self.page(["a"]), Self.page(["a"]), Self.error(403, "AccessDenied")])
        _ = try store(server, isAnonymous: true).list(prefix: "", stop: stop)
        _ = try store(server, ListedCredentials([nil])).list(prefix: "", stop: stop)
        #expect(
            try server.requests().allSatisfy { $0.header("Authorization") == nil && $0.header("X-Amz-Date") == nil })
        let error = try #require(throws: StoreError.self) {
            try store(server, isAnonymous: true).list(prefix: "", stop: stop)
        }
        #expect("\(error)".contains("anonymous"))
    }

    @Test("no region is an error before anything is asked")
    func noRegion() {
        #expect(throws: StoreError.noRegion(bucket: "acme")) {
            try S3Store(
                bucket: "acme", options: StoreOptions(environment: [:]), credentials: ListedCredentials([nil]),
                transport: CurlTransport(environment: [:]), log: .silent)
        }
    }

    @Test("a server that is not there")
    func unreachable() throws {
        var retry = RetryPolicy()
        retry.attempts = 2
        retry.firstPause = .milliseconds(1)
        let options = StoreOptions(
            region: "eu-west-1", endpoint: "http://127.0.0.1:\(LoopbackServer.freePort())", environment: [:],
            retry: retry)
        let store = try S3Store(
            bucket: "acme", options: options, credentials: ListedCredentials(["AK"]),
            transport: CurlTransport(environment: [:]), log: .silent)
        let error = try #require(throws: StoreError.self) { try store.list(prefix: "", stop: stop) }
        #expect(error.isUnreachable)
    }
}
