import CloudPlatform
import Foundation
import HostSystem
import TestSupport
import Testing

@Suite struct WebStoreTests {
    let scratch: ScratchDirectory
    let bytes = seededBytes(900_000)
    let file: String
    let stop = StopFlag.bounded()
    static let modified = "Tue, 24 Nov 2026 03:00:00 GMT"

    init() throws {
        scratch = try ScratchDirectory()
        file = try scratch.write("object", bytes)
    }

    func store(_ url: String) throws -> (any ObjectStore, String) {
        var retry = RetryPolicy()
        retry.firstPause = .milliseconds(2)
        retry.longestPause = .milliseconds(5)
        let location = try StoreLocation(parsing: url)
        let store = try Stores.make(
            location, options: StoreOptions(memory: ByteCount(1 << 20), environment: [:], retry: retry),
            credentials: ListedCredentials(["AK"]), transport: CurlTransport(environment: [:]), log: .silent)
        return (store, location.key)
    }

    func whole(_ store: any ObjectStore, _ key: String) throws -> [UInt8] {
        let object = try #require(try store.stat(key: key, stop: stop))
        return try store.open(object, memory: ByteCount(1 << 20), stop: stop) { _ in }.readAll()
    }

    @Test(
        "a file by ETag, by time, by neither; without HEAD, without ranges, without a length",
        arguments: [
            ("\"one\"", nil, "{}", "{}"), (nil, modified, "{}", "{}"), (nil, nil, "{}", "{}"),
            ("W/\"weak\"", nil, "{}", "{}"),
            ("\"one\"", nil, #"{"status":405}"#, "{}"), ("\"one\"", nil, "{}", #"{"ignore-range":true}"#),
            (nil, nil, #"{"chunked":true}"#, #"{"chunked":true,"ignore-range":true}"#),
        ] as [(String?, String?, String, String)])
    func file(etag: String?, modified: String?, head: String, get: String) throws {
        let server = try FaultServer([
            "HEAD /a/b%20c": .init(file: file, etag: etag, modified: modified, steps: [head]),
            "GET /a/b%20c": .init(file: file, etag: etag, modified: modified, steps: Array(repeating: get, count: 30)),
        ])
        let (store, key) = try store(server.url + "/a/b%20c?sig=MADE-UP-SECRET")
        #expect(try whole(store, key) == bytes)
        let seen = try server.requests()
        #expect(seen.allSatisfy { $0.target == "/a/b%20c?sig=MADE-UP-SECRET" && $0.header("Authorization") == nil })
        #expect(!store.location.contains("MADE-UP-SECRET"))
        #expect(try store.read(key: key, limit: 900_000, stop: stop) == bytes)
    }

    @Test("redirects are followed, within bounds and never to another scheme")
    func redirects() throws {
        let target = try FaultServer(["/real": .init(file: file, etag: "\"one\"")])
        func hop(_ place: String) -> FaultServer.Rule {
            .init(steps: Array(repeating: #"{"status":302,"headers":{"Location":"\#(place)"}}"#, count: 60))
        }
        let server = try FaultServer([
            "/a": hop("b"), "/b": hop(target.url + "/real"), "/loop": hop("/loop"), "/ftp": hop("ftp://127.0.0.1/x"),
            "/file": hop("file:///etc/passwd"), "/none": .init(steps: [#"{"status":302}"#]),
        ])
        let (store, key) = try store(server.url + "/a")
        #expect(try whole(store, key) == bytes)
        #expect(throws: StoreError.tooManyRedirects(object: server.url + "/loop")) {
            try store.stat(key: "loop", stop: stop)
        }
        for (key, place) in [("ftp", "ftp://127.0.0.1/x"), ("file", "file:///etc/passwd"), ("none", "nowhere")] {
            #expect(throws: StoreError.redirected(object: server.url + "/" + key, to: place)) {
                try store.stat(key: key, stop: stop)
            }
        }
    }

    @Test("absent is none, a listing is impossible, a replaced or removed file is told")
    func changed() throws {
        let server = try FaultServer([
            "HEAD /x": .init(file: file, etag: "\"one\""),
            "GET /x": .init(
                file: file, etag: "\"one\"", steps: ["{}"] + Array(repeating: #"{"etag":"\"two\""}"#, count: 30)),
            "HEAD /t": .init(file: file, modified: Self.modified),
            "GET /t": .init(
                file: file, modified: Self.modified, steps: ["{}"] + Array(repeating: #"{"status":404}"#, count: 30)),
        ])
        let (store, _) = try store(server.url + "/x")
        #expect(try store.stat(key: "none", stop: stop) == nil)
        #expect(try store.read(key: "none", limit: 1, stop: stop) == nil)
        #expect(throws: StoreError.cannotList(location: server.url + "/dir/")) {
            try store.list(prefix: "dir/", stop: stop)
        }
        #expect(throws: StoreError.replaced(object: server.url + "/x")) { try whole(store, "x") }
        #expect(throws: StoreError.removed(object: server.url + "/t")) { try whole(store, "t") }
    }

    @Test("a folder is a store")
    func folder() throws {
        let (prefix, empty) = try store("file://\(scratch.path)/")
        #expect(empty.isEmpty)
        #expect(try prefix.list(prefix: "", stop: stop).map(\.key) == ["object"])
        let (store, key) = try store("file://\(file)")
        #expect(try whole(store, key) == bytes)
    }
}
