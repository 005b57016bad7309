import HostSystem
import TestSupport
import Testing

@testable import CloudPlatform

extension MetadataPacing {
    /// The clock of a scripted service; the dice always show the longest wait.
    static func scripted(_ service: ScriptedMetadata) -> MetadataPacing {
        MetadataPacing(
            now: { service.now }, sleep: { duration, stop in try service.sleep(duration, stop) }, jitter: { 1 })
    }
}

func scriptedEC2(
    _ service: ScriptedMetadata, environment: [String: String] = [:], patience: Duration = .seconds(30),
    log: Log = .silent
) -> EC2Metadata {
    EC2Metadata(
        transport: service, environment: environment, patience: patience, log: log, pacing: .scripted(service))
}

@Suite struct IdentityEC2Tests {
    let service = ScriptedMetadata()
    let stop = StopFlag.bounded()

    @Test func readsTheWholeIdentity() throws {
        let data = try #require(try scriptedEC2(service).read(stop: stop))
        #expect(
            data.identity
                == InstanceIdentity(
                    platform: .ec2, id: "i-0123456789abcdef0", region: "eu-west-1", zone: "eu-west-1a",
                    address: "10.0.1.20", type: "t3.small", image: "ami-0fedcba9876543210", account: "123456789012",
                    tags: ["Name": "front", "Environment": "preprod"], autoscalingTargetState: "InService"))
        #expect(data.userData?.revealedText == "#amorce\napp: boutique\n")
        #expect(data.source == "EC2 instance metadata at http://169.254.169.254")
        #expect(service.count("PUT") == 1, "one session token serves all")
        let token = try #require(service.requests.first)
        #expect(token.headers.map(\.value) == ["21600"])
    }

    @Test func nothingGoesThroughAProxyAndNothingGoesWithoutAToken() throws {
        let environment = ["http_proxy": "http://proxy:3128", "HTTP_PROXY": "http://proxy:3128", "ALL_PROXY": "x:1"]
        _ = try scriptedEC2(service, environment: environment).read(stop: stop)
        #expect(service.requests.count > 8)
        for request in service.requests {
            #expect(!request.allowsProxy)
            #expect(request.url.hasPrefix("http://169.254.169.254/latest/"))
            #expect(!request.headers.contains { $0.name.lowercased() == "x-forwarded-for" })
            if request.method == "GET" {
                #expect(request.headers.contains { $0.name.lowercased() == "x-aws-ec2-metadata-token" })
            }
        }
    }

    // MARK: The five answers

    @Test func everythingAbsentIsAnotherPlatform() throws {
        service.fail("*", [.forever(.answer(404))])
        #expect(try scriptedEC2(service).read(stop: stop) == nil)
        #expect(service.requests.count == 1)
    }

    @Test func emptyAnswersAreRefused() {
        service.fail("*", [.forever(.answer(200))])
        #expect(throws: MetadataProblem.malformed(item: "session token", why: "0 bytes that are no token")) {
            try scriptedEC2(service).read(stop: stop)
        }
    }

    @Test func aServiceThatKeepsFailingIsAskedUntilPatienceEnds() {
        service.fail("*", [.forever(.answer(503))])
        #expect(throws: MetadataProblem.failing(path: "/latest/api/token", status: 503)) {
            try scriptedEC2(service).read(stop: stop)
        }
        #expect((8...12).contains(service.requests.count))
        #expect(service.now <= .seconds(30))
    }

    @Test func aClosedPortIsAskedUntilPatienceEnds() {
        service.fail("*", [.forever(.refused)])
        #expect(
            throws: MetadataProblem.unreachable(endpoint: "http://169.254.169.254", reason: "connection refused")
        ) { try scriptedEC2(service).read(stop: stop) }
        #expect((8...12).contains(service.requests.count))
        #expect(service.now <= .seconds(30))
    }

    // MARK: Faults

    @Test func aServiceThatComesUpLateIsWaitedFor() throws {
        service.fail("PUT", [.refused, .refused, .connectTimeout, .reset, .unknown])
        #expect(try scriptedEC2(service).read(stop: stop)?.identity.id == "i-0123456789abcdef0")
        #expect(service.count("PUT") == 6)
    }

    @Test func aBlackHoleIsBounded() {
        service.fail("*", [.forever(.connectTimeout)])
        #expect(
            throws: MetadataProblem.unreachable(endpoint: "http://169.254.169.254", reason: "no connection in time")
        ) { try scriptedEC2(service).read(stop: stop) }
        #expect(service.now <= .seconds(31), "the last connection may end one timeout after the end of patience")
    }

    @Test func disabledMetadataStopsAtOnce() {
        service.fail("PUT", [.forever(.answer(403))])
        let problem = #expect(throws: MetadataProblem.self) { try scriptedEC2(service).read(stop: stop) }
        #expect(problem == .disabled(endpoint: "http://169.254.169.254"))
        #expect(problem.map { "\($0)".contains("disabled") } == true)
        #expect(service.requests.count == 1)
    }

    @Test func aTokenThatNeverComesNamesTheHopLimitAndAsksNothingWithoutOne() {
        service.fail("PUT", [.forever(.answerTimeout)])
        let problem = #expect(throws: MetadataProblem.self) { try scriptedEC2(service).read(stop: stop) }
        #expect(problem == .hopLimit(endpoint: "http://169.254.169.254"))
        #expect(problem.map { "\($0)".contains("hop limit") } == true)
        #expect(service.count("GET") == 0)
        #expect(service.now <= .seconds(33))
    }

    @Test func anExpiredTokenIsRenewedOnce() throws {
        let metadata = scriptedEC2(service)
        _ = try metadata.get("/latest/meta-data/instance-id", stop: stop)
        service.forgetTokens()
        #expect(try metadata.get("/latest/meta-data/local-ipv4", stop: stop) == Array("10.0.1.20".utf8))
        #expect(service.count("PUT") == 2)
        #expect(service.requests.map(\.method) == ["PUT", "GET", "GET", "PUT", "GET"])
    }

    @Test func aTokenThatIsRefusedFreshEndsIt() {
        service.fail("GET", [.forever(.answer(401))])
        #expect(throws: MetadataProblem.tokenRefused(path: "/latest/meta-data/instance-id")) {
            try scriptedEC2(service).read(stop: stop)
        }
        #expect(service.count("PUT") == 2)
        #expect(service.count("GET") == 2)
    }

    @Test func aTokenIsRenewedBeforeItsTimeIsUp() throws {
        let metadata = scriptedEC2(service)
        _ = try metadata.get("/latest/meta-data/instance-id", stop: stop)
        try service.sleep(.seconds(21599), stop)
        _ = try metadata.get("/latest/meta-data/instance-id", stop: stop)
        #expect(service.requests.map(\.method) == ["PUT", "GET", "PUT", "GET"])
    }

    @Test(arguments: [429, 500, 502, 503, 504])
    func aBurstOfFailuresPasses(status: Int) throws {
        service.fail("PUT", [.answer(status), .answer(status)])
        service.fail("GET /latest/meta-data/instance-id", [.answer(status), .answer(503), .answer(429), .answer(500)])
        service.fail("GET /latest/user-data", [.answer(status)])
        #expect(try scriptedEC2(service).read(stop: stop)?.userData != nil)
    }

    @Test func waitsGrowAndAreScattered() {
        var pacing = MetadataPacing.scripted(service)
        #expect(
            (1...7).map { pacing.delay(after: $0) }
                == [200, 400, 800, 1600, 3200, 5000, 5000].map { .milliseconds($0) })
        pacing.jitter = { 0 }
        #expect(pacing.delay(after: 1) == .milliseconds(100))
        #expect(pacing.delay(after: 1000) == .milliseconds(2500))
    }

    @Test(arguments: [
        (400, MetadataProblem.unexpected(path: "/latest/api/token", status: 400)),
        (302, .unexpected(path: "/latest/api/token", status: 302)),
        (401, .unexpected(path: "/latest/api/token", status: 401)),
    ])
    func otherAnswersToTheRequestForATokenEndIt(status: Int, problem: MetadataProblem) {
        service.fail("PUT", [.forever(.answer(status))])
        #expect(throws: problem) { try scriptedEC2(service).read(stop: stop) }
        #expect(service.requests.count == 1)
    }

    @Test(arguments: [404, 405, 501])
    func aServiceWithoutTokensIsNotEC2(status: Int) throws {
        service.fail("PUT", [.forever(.answer(status))])
        #expect(try scriptedEC2(service).read(stop: stop) == nil)
        #expect(service.count("GET") == 0)
    }

    @Test func anItemThatIsForbiddenEndsIt() {
        service.fail("GET /latest/meta-data/instance-id", [.forever(.answer(403))])
        #expect(throws: MetadataProblem.forbidden(path: "/latest/meta-data/instance-id")) {
            try scriptedEC2(service).read(stop: stop)
        }
    }

    @Test(arguments: ["/latest/user-data", "/latest/meta-data/tags/instance", "/latest/meta-data/placement/region"])
    func aFaultIsNeverAnAbsence(path: String) {
        service.fail("GET \(path)", [.forever(.answer(500))])
        #expect(throws: MetadataProblem.failing(path: path, status: 500)) { try scriptedEC2(service).read(stop: stop) }
        service.fail("GET \(path)", [.forever(.connectTimeout)])
        #expect(throws: MetadataProblem.silent(path: path, reason: "no connection in time")) {
            try scriptedEC2(service).read(stop: stop)
        }
    }

    @Test func aBrokenAnswerIsNotAskedForUntilTheEnd() {
        service.fail("GET /latest/user-data", [.forever(.reset)])
        #expect(throws: MetadataProblem.silent(path: "/latest/user-data", reason: "connection reset")) {
            try scriptedEC2(service, patience: .seconds(3600)).read(stop: stop)
        }
        #expect(service.requests.count { $0.url.hasSuffix("user-data") } == 5)
    }

    @Test func aStopEndsTheWaiting() {
        service.fail("*", [.forever(.refused)])
        service.onSleep { [stop] _ in stop.raise(signal: 15) }
        #expect(throws: StopReason.signal(15)) { try scriptedEC2(service).read(stop: stop) }
        #expect(service.requests.count == 1)
    }

    // MARK: Values

    @Test func optionalItemsMayBeAbsent() throws {
        for path in ScriptedMetadata.front.keys where path != "/latest/meta-data/instance-id" { service.set(path, nil) }
        let data = try #require(try scriptedEC2(service).read(stop: stop))
        #expect(data.identity == InstanceIdentity(platform: .ec2, id: "i-0123456789abcdef0"))
        #expect(data.userData == nil)
    }

    @Test func noInstanceIdentifierIsAnError() {
        service.set("/latest/meta-data/instance-id", nil)
        #expect(throws: MetadataProblem.absent(path: "instance-id")) { try scriptedEC2(service).read(stop: stop) }
    }

    @Test func theIdentityDocumentFillsGaps() throws {
        service.set("/latest/meta-data/placement/region", nil)
        #expect(try scriptedEC2(service).read(stop: stop)?.identity.region == "eu-west-1")
    }

    @Test func aSubnetOfIPv6AloneHasAnAddress() throws {
        service.set("/latest/meta-data/local-ipv4", nil)
        service.set("/latest/meta-data/ipv6", "2001:db8:1234:1a00::5")
        #expect(try scriptedEC2(service).read(stop: stop)?.identity.address == "2001:db8:1234:1a00::5")
    }

    @Test(arguments: [
        ("instance-id", "i-0123\r\nX-Evil: 1"), ("instance-id", "<html>Sign in</html>"), ("instance-id", ""),
        ("instance-id", "../../etc/passwd"), ("instance-id", "i-"), ("instance-id", "i-xyz"),
        ("instance-id", "i-" + String(repeating: "0", count: 70)), ("placement/region", "eu west 1"),
        ("placement/region", "<html>"), ("placement/availability-zone", "eu-west-1a\neu-west-1b"),
        ("local-ipv4", "10.0.1"), ("local-ipv4", "10.0.1.256"), ("local-ipv4", "10.0.1.+5"),
        ("local-ipv4", "10.0.1.2.3"),
        ("instance-type", "t3/small"), ("ami-id", ""), ("autoscaling/target-lifecycle-state", "In Service"),
    ])
    func malformedValuesAreRefused(item: String, value: String) {
        service.set("/latest/meta-data/" + item, value)
        let problem = #expect(throws: MetadataProblem.self) { try scriptedEC2(service).read(stop: stop) }
        guard case .malformed(let name, _) = problem else {
            Issue.record("\(String(describing: problem))")
            return
        }
        #expect(name == "/latest/meta-data/" + item)
        #expect(problem.map { "\($0)".contains { $0.isNewline } } == false)
    }

    @Test(arguments: ["", "[]", "{", "<html></html>", #"{"instanceId":"i-0aaaaaaaaaaaaaaaa"}"#, #"{"accountId":"12"}"#])
    func malformedIdentityDocumentsAreRefused(body: String) {
        service.set("/latest/dynamic/instance-identity/document", body)
        let problem = #expect(throws: MetadataProblem.self) { try scriptedEC2(service).read(stop: stop) }
        guard case .malformed = problem else {
            Issue.record("\(String(describing: problem))")
            return
        }
    }

    @Test(arguments: ["a b", "a\nb", "", "<html>", String(repeating: "x", count: 2000), "täg"])
    func malformedTokensAreRefusedAndNotShown(token: String) {
        service.fail("PUT", [.forever(.answer(200, token))])
        let problem = #expect(throws: MetadataProblem.self) { try scriptedEC2(service).read(stop: stop) }
        guard case .malformed("session token", let why) = problem else {
            Issue.record("\(String(describing: problem))")
            return
        }
        #expect(token.isEmpty || !why.contains(token))
        #expect(service.count("GET") == 0)
    }

    @Test(arguments: [
        "$(reboot); `id` && rm -rf / | cat > /etc/passwd", "a\nb\r\nc", "héros 🛒", "\"'\\%{{x}}", "", "\u{1b}[31mred",
    ])
    func aTagIsDataWhateverIsInIt(value: String) throws {
        service.set("/latest/meta-data/tags/instance/Name", value)
        #expect(try scriptedEC2(service).read(stop: stop)?.identity.tags["Name"] == value)
    }

    @Test func tagsThatCannotBeAskedForAreLeftOut() throws {
        let log = LogRecorder()
        service.set("/latest/meta-data/tags/instance", "Name\n../../user-data\n..\na b\nGone\nLatin\n")
        service.set("/latest/meta-data/tags/instance/Latin", nil)
        service.set("/latest/meta-data/tags/instance/Latin", bytes: [0x68, 0xe9])
        let data = try scriptedEC2(service, log: log.log).read(stop: stop)
        #expect(data?.identity.tags == ["Name": "front"])
        #expect(!service.requests.contains { $0.url.contains("..") || $0.url.contains(" ") })
        #expect(log.text.contains("warning: the tag ../../user-data is left out"))
        #expect(log.text.contains("warning: the tag Latin is left out"))
    }

    @Test func tagsThatAreNotShownAreNone() throws {
        let log = LogRecorder()
        service.set("/latest/meta-data/tags/instance", nil)
        #expect(try scriptedEC2(service, log: log.log).read(stop: stop)?.identity.tags == [:])
        #expect(log.text.contains("detail: no tags"))
    }

    @Test func noGroupIsNoState() throws {
        service.set("/latest/meta-data/autoscaling/target-lifecycle-state", nil)
        #expect(try scriptedEC2(service).read(stop: stop)?.identity.autoscalingTargetState == nil)
    }

    @Test func emptyUserDataIsNone() throws {
        service.set("/latest/user-data", "")
        #expect(try #require(try scriptedEC2(service).read(stop: stop)).userData == nil)
    }

    @Test func userDataArrivesByteForByte() throws {
        let bytes = (0..<16384).map { UInt8(truncatingIfNeeded: $0 &* 31) }
        service.set("/latest/user-data", bytes: bytes)
        #expect(try scriptedEC2(service).read(stop: stop)?.userData?.revealedBytes == bytes)
    }

    @Test func userDataWithoutEndIsRefused() throws {
        service.set("/latest/user-data", bytes: [UInt8](repeating: 0x61, count: (64 << 10) + 1))
        #expect(throws: MetadataProblem.tooLarge(item: "/latest/user-data", limit: 64 << 10)) {
            try scriptedEC2(service).read(stop: stop)
        }
        service.fail("GET /latest/user-data", [.forever(.tooLarge)])
        let before = service.requests.count
        #expect(throws: MetadataProblem.tooLarge(item: "/latest/user-data", limit: 64 << 10)) {
            try scriptedEC2(service).read(stop: stop)
        }
        #expect(service.requests.dropFirst(before).count { $0.url.hasSuffix("user-data") } == 1)
        let request = try #require(service.requests.last)
        #expect(request.bodyLimit == 64 << 10, "the transport is told to stop there")
    }

    @Test(arguments: [
        "/latest/../x", "/2021-01-03/x", "/latest/a?b", "/latest/a\r\nb", "/latest/a b", "latest/x", "/latest/./x",
    ])
    func onlyItemsAreAskedFor(path: String) {
        let problem = #expect(throws: MetadataProblem.self) { try scriptedEC2(service).get(path, stop: stop) }
        guard case .malformed("path", _) = problem else {
            Issue.record("\(String(describing: problem))")
            return
        }
        #expect(service.requests.isEmpty)
    }

    // MARK: Endpoint

    static let endpoint = "AWS_EC2_METADATA_SERVICE_ENDPOINT"
    static let mode = "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE"

    /// The cases that the AWS SDKs agree on, as far as the environment goes, and what makes no URL.
    @Test(
        arguments: [
            ([:], "http://169.254.169.254"),
            ([endpoint: "http://override:456"], "http://override:456"),
            ([endpoint: "http://override:456/"], "http://override:456"),
            ([endpoint: "https://custom"], "https://custom"),
            ([endpoint: "http://127.0.0.1:1338/imds"], "http://127.0.0.1:1338/imds"),
            ([endpoint: "http://[fd00:ec2::254]"], "http://[fd00:ec2::254]"),
            ([endpoint: "http://169.254.169.200", mode: "IPv6"], "http://169.254.169.200"),
            ([endpoint: "http://override", mode: "error"], "http://override"),
            ([endpoint: "", mode: "IPv6"], "http://[fd00:ec2::254]"),
            ([mode: "IPv4"], "http://169.254.169.254"),
            ([mode: "IPv6"], "http://[fd00:ec2::254]"),
            ([mode: "ipv6"], "http://[fd00:ec2::254]"),
            ([mode: ""], "http://169.254.169.254"),
            ([mode: "error"], nil),
            ([mode: "IPv7"], nil),
            ([endpoint: "not a uri"], nil),
            ([endpoint: "169.254.169.254"], nil),
            ([endpoint: "ftp://override"], nil),
            ([endpoint: "http://"], nil),
            ([endpoint: "http:///latest"], nil),
            ([endpoint: "http://a b"], nil),
            ([endpoint: "http://host\r\nX-Evil: 1"], nil),
            ([endpoint: "http://user:MADE-UP-SECRET@host"], nil),
            ([endpoint: "http://host?x=1"], nil),
        ] as [([String: String], String?)])
    func theEndpointComesFromTheEnvironment(environment: [String: String], expected: String?) throws {
        let metadata = scriptedEC2(service, environment: environment)
        if let expected {
            let data = try metadata.read(stop: stop)
            #expect(data?.source == "EC2 instance metadata at \(expected)")
            #expect(service.requests.first?.url == expected + "/latest/api/token")
        } else {
            let problem = #expect(throws: MetadataProblem.self) { try metadata.read(stop: stop) }
            guard case .environment(let variable, _) = problem else {
                Issue.record("\(String(describing: problem))")
                return
            }
            #expect(variable == (environment[Self.endpoint] == nil ? Self.mode : Self.endpoint))
            #expect(problem.map { "\($0)".contains("MADE-UP-SECRET") } == false)
            #expect(service.requests.isEmpty)
        }
    }

    @Test(arguments: [("true", true), ("TRUE", true), ("True", true), ("false", false), ("1", false), ("", false)])
    func metadataCanBeSwitchedOff(value: String, isOff: Bool) throws {
        let metadata = scriptedEC2(service, environment: ["AWS_EC2_METADATA_DISABLED": value])
        #expect(metadata.isSwitchedOff == isOff)
        #expect((try metadata.read(stop: stop) == nil) == isOff)
        #expect(service.requests.isEmpty == isOff)
        if isOff {
            #expect(throws: MetadataProblem.switchedOff) { try metadata.get("/latest/user-data", stop: stop) }
        }
    }
}
