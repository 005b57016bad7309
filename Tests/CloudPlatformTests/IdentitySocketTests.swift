import Foundation
import HostSystem
import TestSupport
import Testing

@testable import CloudPlatform

/// The same over the transport that ships and real sockets, in real time. Serialized: the limits of requests are measured.
@Suite(.serialized) struct IdentitySocketTests {
    static let transport: any HTTPTransport = CurlTransport()
    let stop = StopFlag.bounded()

    static let items = ScriptedMetadata.front.merging([
        IdentityRoleCredentialTests.path: IdentityRoleCredentialTests.document(expires: "2099-11-24T18:00:00Z")
    ]) { $1 }

    static func metadata(_ url: String, patience: Duration = .seconds(20), log: Log = .silent) -> EC2Metadata {
        EC2Metadata(
            transport: transport, environment: ["AWS_EC2_METADATA_SERVICE_ENDPOINT": url], patience: patience, log: log)
    }

    /// libcurl reads the environment of its process, so the test has one of its own. No proxy is at that address: a request that
    /// went there would fail, as the second one does.
    @Test func noProxyOfTheEnvironmentIsUsed() async throws {
        let server = try MetadataServer(items: Self.items)
        await #expect(processExitsWith: .success) { [url = server.url as String] in
            for name in ["http_proxy", "all_proxy", "ALL_PROXY"] { setenv(name, "http://127.0.0.1:1", 1) }
            unsetenv("no_proxy")
            unsetenv("NO_PROXY")
            let data = try Self.metadata(url, patience: .seconds(5)).read(stop: .bounded())
            #expect(data?.identity.id == "i-0123456789abcdef0")
            #expect(throws: HTTPFailure.self) {
                try Self.transport.perform(HTTPRequest("GET", url + "/latest/user-data"), stop: .bounded())
            }
        }
        #expect(server.requests.count > 8)
    }

    @Test func readsAnInstanceAndItsCredentials() throws {
        let server = try MetadataServer(items: Self.items)
        let metadata = Self.metadata(server.url)
        let data = try #require(try metadata.read(stop: stop))
        #expect(data.identity.id == "i-0123456789abcdef0")
        #expect(data.identity.tags == ["Name": "front", "Environment": "preprod"])
        #expect(data.userData == Secret("#amorce\napp: boutique\n"))
        let role = RoleCredentials(metadata: metadata, log: .silent)
        #expect(try role.credentials(stop: stop)?.accessKey == "ASIAFIRST")
        #expect(server.requests.count { $0.hasPrefix("PUT ") } == 1)
    }

    @Test func aServiceThatStartsLateIsWaitedFor() throws {
        let port = LoopbackServer.freePort()
        let log = LogRecorder()
        let late = ServerBox()
        let thread = Thread {
            // Not before it was asked for in vain.
            guard log.wait(for: "does not answer") else { return }
            late.hold(try? MetadataServer(items: Self.items, port: port))
        }
        thread.start()
        let data = try Self.metadata("http://127.0.0.1:\(port)", patience: .seconds(60), log: log.log).read(stop: stop)
        #expect(data?.identity.id == "i-0123456789abcdef0")
        #expect(log.text.contains("refused the connection"))
        late.hold(nil)
    }

    @Test func aBlackHoleEnds() {
        let hole = BlackHole()
        let problem = #expect(throws: MetadataProblem.self) {
            try Self.metadata(hole.url, patience: .seconds(3)).read(stop: stop)
        }
        guard case .unreachable(hole.url, _) = problem else {
            Issue.record("\(String(describing: problem))")
            return
        }
    }

    @Test func aTokenThatNeverComesNamesTheHopLimit() throws {
        let server = try MetadataServer(items: Self.items, fault: "hang-put")
        #expect(throws: MetadataProblem.hopLimit(endpoint: server.url)) {
            try Self.metadata(server.url, patience: .seconds(2)).read(stop: stop)
        }
        #expect(Set(server.requests) == ["PUT /latest/api/token"], "nothing is asked without a token")
    }

    @Test func anExpiredTokenIsRenewed() throws {
        let server = try MetadataServer(items: Self.items, fault: "short-token")
        let metadata = Self.metadata(server.url)
        _ = try metadata.get("/latest/meta-data/instance-id", stop: stop)
        usleep(1_200_000)
        #expect(try metadata.get("/latest/meta-data/local-ipv4", stop: stop) == Array("10.0.1.20".utf8))
        #expect(server.requests.count { $0.hasPrefix("PUT ") } == 2)
    }

    @Test func userDataWithoutEndIsRefused() throws {
        let server = try MetadataServer(items: Self.items, fault: "endless")
        #expect(throws: MetadataProblem.tooLarge(item: "/latest/user-data", limit: 64 << 10)) {
            try Self.metadata(server.url).read(stop: stop)
        }
    }

    @Test func aServiceThatDiesLeavesWhatItGave() throws {
        let server = try MetadataServer(items: Self.items, fault: "dying=3")
        let metadata = Self.metadata(server.url, patience: .seconds(1))
        let time = SettableTime(IdentityRoleCredentialTests.noon)
        let role = RoleCredentials(
            metadata: metadata, patience: .seconds(1), log: .silent, now: { time.now }, pacing: .real)
        let first = try #require(try role.credentials(stop: stop))
        time.advance(try #require(first.expires) - time.now - 100)
        #expect(try role.credentials(stop: stop) == first)
        time.advance(101)
        #expect(throws: CredentialProblem.self) { try role.credentials(stop: stop) }
    }

    @Test func aStopEndsARequestUnderWay() throws {
        let server = try MetadataServer(items: Self.items, fault: "hang-put")
        let stop = StopFlag(deadline: .milliseconds(300))
        #expect(throws: StopReason.deadline) { try Self.metadata(server.url).read(stop: stop) }
    }
}

/// Keeps a server that another thread started.
final class ServerBox: @unchecked Sendable {
    private let lock = NSLock()
    private var server: MetadataServer?
    func hold(_ server: MetadataServer?) { lock.withLock { self.server = server } }
}
