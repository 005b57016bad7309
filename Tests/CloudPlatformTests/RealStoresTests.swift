import CloudPlatform
import Foundation
import HostSystem
import TestSupport
import Testing

/// Servers that others wrote, as judges: rclone and ministack check every signature, moto pages and pins.
@Suite struct RealStoresTests {
    let scratch: ScratchDirectory
    let transport = CurlTransport(environment: [:])
    let stop = StopFlag.bounded()
    let bytes = seededBytes(2_500_000)

    init() throws { scratch = try ScratchDirectory() }

    struct Keys: CredentialProvider {
        let accessKey: String
        let secretKey: String
        func credentials(stop: StopFlag) throws -> Credentials? {
            Credentials(accessKey: accessKey, secretKey: Secret(secretKey), origin: "test")
        }
        func invalidate() {}
    }

    func store(
        _ server: LoopbackServer, _ keys: Keys, region: String = "us-east-1", bucket: String = "acme",
        isAnonymous: Bool = false,
        offset: Int64 = 0, transport: (any HTTPTransport)? = nil, log: Log = .silent
    ) throws -> S3Store {
        try S3Store(
            bucket: bucket,
            options: StoreOptions(
                region: region, endpoint: server.url, isAnonymous: isAnonymous, memory: ByteCount(1 << 20),
                environment: [:]),
            credentials: keys, transport: transport ?? self.transport, log: log, clock: { Host.now + offset })
    }

    func ministackServer() throws -> LoopbackServer {
        try LoopbackServer(
            [TestTools.program("ministack")],
            environment: [
                "GATEWAY_PORT": "{port}", "BIND_HOST": "127.0.0.1", "AUTH": "true", "STATE_DIR": scratch("state"),
            ])
    }

    /// The keys of a new user of ministack, who may do `allowed` and nothing else.
    func user(_ name: String, allowed: [String], _ server: LoopbackServer) throws -> Keys {
        let root = Keys(accessKey: "test", secretKey: "test")
        func iam(_ query: String) throws -> String {
            try send(
                "POST", server.url + "/", root, service: "iam", body: Array((query + "&Version=2010-05-08").utf8),
                headers: [("Content-Type", "application/x-www-form-urlencoded")]
            ).text
        }
        _ = try iam("Action=CreateUser&UserName=\(name)")
        let actions = allowed.map { "\"\($0)\"" }.joined(separator: ",")
        let policy =
            #"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":[\#(actions)],"Resource":"*"}]}"#
        let encoded = try #require(policy.addingPercentEncoding(withAllowedCharacters: .alphanumerics))
        _ = try iam("Action=PutUserPolicy&UserName=\(name)&PolicyName=p&PolicyDocument=" + encoded)
        let key = try iam("Action=CreateAccessKey&UserName=\(name)")
        let document = try XMLReader.parse(Array(key.utf8))
        let made = try #require(document.child("CreateAccessKeyResult")?.child("AccessKey"))
        return Keys(
            accessKey: try #require(made.text(of: "AccessKeyId")),
            secretKey: try #require(made.text(of: "SecretAccessKey")))
    }

    func send(
        _ method: String, _ url: String, _ keys: Keys, service: String = "s3", body: [UInt8] = [],
        headers: [(name: String, value: String)] = []
    ) throws -> HTTPResponse {
        let signer = SigV4(service: service, region: "us-east-1", dialect: service == "s3" ? .s3 : .generic)
        let credentials = try #require(try keys.credentials(stop: stop))
        let request = HTTPRequest(method, url, headers: headers, body: body, timeout: .seconds(60))
        let response = try transport.perform(signer.sign(request, with: credentials, at: Host.now), stop: stop)
        #expect((200..<300).contains(response.status), "\(method) \(url): \(response.text)")
        return response
    }

    func whole(_ store: S3Store, _ key: String, from offset: Int64 = 0) throws -> [UInt8] {
        let object = try #require(try store.stat(key: key, stop: stop))
        #expect(object.size == Int64(bytes.count))
        return try store.open(object, from: offset, memory: ByteCount(1 << 20), stop: stop) { _ in }.readAll()
    }

    static let oddKey = "boutique/a b+c&d=é%41(1).tar"

    @Test("rclone's server accepts every signature and gives every byte")
    func rclone() throws {
        try scratch.write("acme/boutique/x.tar", bytes)
        try scratch.write("acme/" + Self.oddKey, bytes)
        let keys = Keys(accessKey: "AKTEST", secretKey: "MADE-UP-SECRET")
        let server = try LoopbackServer([
            TestTools.program("rclone"), "serve", "s3", scratch.path, "--addr", "127.0.0.1:{port}", "--auth-key",
            "AKTEST,MADE-UP-SECRET", "--config", "/dev/null",
        ])
        let store = try store(server, keys)
        #expect(
            try store.list(prefix: "boutique/", stop: stop).map(\.key).sorted()
                == [Self.oddKey, "boutique/x.tar"].sorted())
        #expect(try whole(store, "boutique/x.tar") == bytes)
        #expect(try whole(store, Self.oddKey, from: 1_234_567) == Array(bytes[1_234_567...]))
        #expect(try store.stat(key: "boutique/none", stop: stop) == nil)
        let wrong = try self.store(server, Keys(accessKey: "AKTEST", secretKey: "MADE-UP-SECRET-2"))
        let error = try #require(throws: StoreError.self) { try wrong.list(prefix: "", stop: stop) }
        #expect(error.isPermission && "\(error)".contains("SignatureDoesNotMatch"))
        #expect(throws: StoreError.self) {
            try self.store(server, keys, bucket: "missing").list(prefix: "", stop: stop)
        }
        // Twenty minutes wrong, both ways.
        for offset in [-1200, 1200] as [Int64] {
            #expect(try self.store(server, keys, offset: offset).list(prefix: "", stop: stop).count == 2)
        }
    }

    @Test("ministack accepts the signatures of a user, corrects the region, and refuses the rest")
    func ministack() throws {
        let server = try ministackServer()
        let keys = try user("front", allowed: ["s3:*"], server)
        _ = try send("PUT", server.url + "/acme", keys)
        _ = try send("PUT", server.url + "/acme/boutique/x.tar", keys, body: bytes)
        let store = try store(server, keys)
        #expect(try store.list(prefix: "boutique/", stop: stop).map(\.key) == ["boutique/x.tar"])
        #expect(try whole(store, "boutique/x.tar") == bytes)
        // Signed for another region, the bucket names its own.
        #expect(
            try whole(try self.store(server, keys, region: "eu-west-3"), "boutique/x.tar", from: 99)
                == Array(bytes[99...]))
        for offset in [-1200, 1200] as [Int64] {
            #expect(try whole(try self.store(server, keys, offset: offset), "boutique/x.tar") == bytes)
        }
        let wrong = try self.store(server, Keys(accessKey: keys.accessKey, secretKey: "MADE-UP-SECRET"))
        let error = try #require(throws: StoreError.self) { try wrong.list(prefix: "", stop: stop) }
        #expect(error.isPermission)
        let anonymous = try #require(throws: StoreError.self) {
            try self.store(server, keys, isAnonymous: true).list(prefix: "", stop: stop)
        }
        #expect(anonymous.isPermission)
        #expect(throws: StoreError.self) {
            try self.store(server, keys, bucket: "missing").list(prefix: "", stop: stop)
        }
    }

    @Test("moto gives 2,500 keys on three pages, and refuses an object that was replaced or removed")
    func moto() throws {
        let server = try LoopbackServer([TestTools.program("moto_server"), "-H", "127.0.0.1", "-p", "{port}"])
        let keys = Keys(accessKey: "AKTEST", secretKey: "MADE-UP-SECRET")
        _ = try send("PUT", server.url + "/acme", keys)
        for number in 0..<2500 { _ = try send("PUT", server.url + "/acme/p/\(number)%20%C3%A9", keys, body: [1]) }
        let store = try store(server, keys)
        let found = try store.list(prefix: "p/", stop: stop)
        #expect(Set(found.map(\.key)) == Set((0..<2500).map { "p/\($0) é" }))
        #expect(found.count == 2500)
        _ = try send("PUT", server.url + "/acme/x", keys, body: bytes)
        let pinned = try #require(try store.stat(key: "x", stop: stop))
        #expect(try whole(store, "x") == bytes)
        _ = try send("PUT", server.url + "/acme/x", keys, body: seededBytes(2_500_000, seed: 2))
        #expect(throws: StoreError.replaced(object: "s3://acme/x")) {
            try store.open(pinned, memory: ByteCount(1 << 20), stop: stop) { _ in }.readAll()
        }
        _ = try send("DELETE", server.url + "/acme/x", keys)
        #expect(throws: StoreError.removed(object: "s3://acme/x")) {
            try store.open(pinned, memory: ByteCount(1 << 20), stop: stop) { _ in }.readAll()
        }
        let error = try #require(throws: StoreError.self) {
            try self.store(server, keys, bucket: "missing").stat(key: "x", stop: stop)
        }
        guard case .noSuchBucket("missing", _) = error else {
            Issue.record("\(error)")
            return
        }
    }
}
