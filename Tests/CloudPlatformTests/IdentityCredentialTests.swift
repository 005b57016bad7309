import HostSystem
import Synchronization
import TestSupport
import Testing

@testable import CloudPlatform

/// A wall clock that a test sets.
final class SettableTime: Sendable {
    private let seconds: Mutex<Int64>
    init(_ seconds: Int64) { self.seconds = Mutex(seconds) }
    var now: Int64 { seconds.withLock { $0 } }
    func advance(_ by: Int64) { seconds.withLock { $0 += by } }
}

@Suite struct IdentityRoleCredentialTests {
    /// 2026-11-24T12:00:00Z.
    static let noon: Int64 = 1_795_521_600
    static let list = "/latest/meta-data/iam/security-credentials/"
    static let path = list + "front-role"

    let service = ScriptedMetadata()
    let time = SettableTime(noon)
    let stop = StopFlag.bounded()
    let log = LogRecorder()

    static func document(_ key: String = "ASIAFIRST", expires: String) -> String {
        """
        {
          "Code" : "Success", "LastUpdated" : "2026-11-24T12:00:00Z", "Type" : "AWS-HMAC", "AccessKeyId" : "\(key)",
          "SecretAccessKey" : "MADE-UP-SECRET/\(key)", "Token" : "MADE-UP-SECRET-SESSION==", "Expiration" : "\(expires)"
        }
        """
    }

    init() { service.set(Self.path, Self.document(expires: "2026-11-24T18:00:00Z")) }

    func role() -> RoleCredentials {
        RoleCredentials(
            metadata: scriptedEC2(service), patience: .seconds(60), log: log.log,
            now: { [time] in time.now }, pacing: .scripted(service))
    }

    @Test func givesTheCredentialsOfTheRole() throws {
        let found = try role().credentials(stop: stop)
        #expect(
            found
                == Credentials(
                    accessKey: "ASIAFIRST", secretKey: Secret("MADE-UP-SECRET/ASIAFIRST"),
                    sessionToken: Secret("MADE-UP-SECRET-SESSION=="), expires: Self.noon + 6 * 3600,
                    origin: "instance role front-role"))
        #expect(service.requests.allSatisfy { !$0.allowsProxy })
    }

    static let refusal = #"{"Code":"AssumeRoleUnauthorizedAccess","Message":"EC2 cannot assume the role front-role."}"#

    @Test(arguments: [
        (
            refusal,
            CredentialProblem.refused(
                role: "front-role", code: "AssumeRoleUnauthorizedAccess",
                message: "EC2 cannot assume the role front-role.")
        ),
        (#"{"Code":"Failed"}"#, .refused(role: "front-role", code: "Failed", message: "")),
        ("", .malformed(role: "front-role", why: "nothing")),
        ("<html>Sign in</html>", .malformed(role: "front-role", why: "no JSON object")),
        ("[]", .malformed(role: "front-role", why: "no JSON object")),
        ("null", .malformed(role: "front-role", why: "no JSON object")),
        (
            String(document(expires: "2026-11-24T18:00:00Z").prefix(200)),
            .malformed(role: "front-role", why: "no JSON object")
        ),
        ("{}", .malformed(role: "front-role", why: "no AccessKeyId")),
        (#"{"Code":"Success","AccessKeyId":"A"}"#, .malformed(role: "front-role", why: "no SecretAccessKey")),
        (
            #"{"AccessKeyId":"","SecretAccessKey":"s","Token":"t","Expiration":"2026-11-24T18:00:00Z"}"#,
            .malformed(role: "front-role", why: "no AccessKeyId")
        ),
        (
            #"{"AccessKeyId":"A","SecretAccessKey":"s","Expiration":"2026-11-24T18:00:00Z"}"#,
            .malformed(role: "front-role", why: "no Token")
        ),
        (
            #"{"AccessKeyId":"A","SecretAccessKey":"s","Token":"t"}"#,
            .malformed(role: "front-role", why: "no Expiration")
        ),
        (
            #"{"AccessKeyId":"A","SecretAccessKey":"s","Token":7,"Expiration":"2026-11-24T18:00:00Z"}"#,
            .malformed(role: "front-role", why: "no Token")
        ),
        (
            #"{"AccessKeyId":"A\r\nX-Evil: 1","SecretAccessKey":"s","Token":"t","Expiration":"2026-11-24T18:00:00Z"}"#,
            .malformed(role: "front-role", why: "an unusable AccessKeyId")
        ),
        (
            #"{"AccessKeyId":"A","SecretAccessKey":"s","Token":"t","Expiration":"tomorrow"}"#,
            .malformed(role: "front-role", why: "an Expiration that is no time")
        ),
        (
            document(expires: "2026-13-44T18:00:00Z"),
            .malformed(role: "front-role", why: "an Expiration that is no time")
        ),
    ])
    func whatIsNoCredentialsIsRefusedAndAskedForAgain(body: String, problem: CredentialProblem) {
        service.set(Self.path, body)
        #expect(throws: problem) { try role().credentials(stop: stop) }
        let asked = service.requests.count { $0.url.hasSuffix("/front-role") }
        #expect(asked > 2, "refusals and damage pass: a new role takes seconds to be known")
        #expect(service.now <= .seconds(61))
        #expect(!"\(problem)".contains { $0.isNewline })
    }

    @Test func damageThatPassesIsForgotten() throws {
        let good = Self.document(expires: "2026-11-24T18:00:00Z")
        service.fail(
            "GET " + Self.path, [.answer(200, ""), .answer(200, Self.refusal), .answer(503), .answer(200, good)])
        #expect(try role().credentials(stop: stop)?.accessKey == "ASIAFIRST")
    }

    @Test(arguments: [nil, "", "\n"])
    func noRoleNamesTheInstanceProfile(list: String?) {
        service.set(Self.list, list)
        let problem = #expect(throws: CredentialProblem.self) { try role().credentials(stop: stop) }
        #expect(problem == .noInstanceProfile)
        #expect(problem.map { "\($0)".contains("instance profile") } == true)
        #expect(service.requests.count == 2, "nothing that waiting would change")
    }

    @Test func aRoleWithoutADocumentNamesTheInstanceProfile() {
        service.set(Self.path, nil)
        #expect(throws: CredentialProblem.noInstanceProfile) { try role().credentials(stop: stop) }
    }

    @Test(arguments: [
        "front\r\nX-Evil: 1", "front\nother", "../../user-data", "..", ".", "a/b", "a b", "<html></html>", "a?b",
        "a%2fb", "rôle",
        String(repeating: "r", count: 65), "front\r",
    ])
    func aRoleThatCannotBeOneIsRefused(name: String) {
        service.set(Self.list, name)
        let problem = #expect(throws: CredentialProblem.self) { try role().credentials(stop: stop) }
        #expect(problem == .roleName(name))
        #expect(problem.map { "\($0)".contains { $0.isNewline } } == false)
        #expect(service.requests.map { $0.url.hasSuffix(Self.list) }.filter { $0 }.count == 1)
        #expect(service.requests.count == 2)
    }

    @Test func aNameWithALineEndIsAName() throws {
        service.set(Self.list, "front-role\n")
        #expect(try role().credentials(stop: stop) != nil)
    }

    // MARK: Renewal

    /// Seconds before the end, and whether they are asked for again then.
    @Test(arguments: [
        (6 * 3600, false), (901, false), (899, true), (301, true), (299, true), (20, true), (0, true), (-60, true),
    ])
    func newOnesAreAskedForBeforeTheOldExpire(left: Int64, isAsked: Bool) throws {
        let role = role()
        _ = try role.credentials(stop: stop)
        service.set(Self.path, Self.document("ASIASECOND", expires: "2026-11-25T00:00:00Z"))
        time.advance(6 * 3600 - left)
        #expect(try role.credentials(stop: stop)?.accessKey == (isAsked ? "ASIASECOND" : "ASIAFIRST"))
    }

    @Test func theOldOnesAreGivenUntilTheyExpireWhileTheServiceIsDown() throws {
        let role = role()
        _ = try role.credentials(stop: stop)
        service.fail("*", [.forever(.refused)])
        let asked = service.requests.count
        time.advance(6 * 3600 - 800)
        #expect(try role.credentials(stop: stop)?.accessKey == "ASIAFIRST")
        #expect(service.requests.count == asked + 1, "early, one attempt and no waiting")
        #expect(try role.credentials(stop: stop)?.accessKey == "ASIAFIRST")
        #expect(service.requests.count == asked + 1, "and not one for every request that is signed")
        time.advance(600)
        let before = service.now
        #expect(try role.credentials(stop: stop)?.accessKey == "ASIAFIRST")
        #expect(service.now > before + .seconds(10), "late, with patience")
        #expect(service.now < before + .seconds(61))
        #expect(log.text.contains("warning: "))
        time.advance(199)
        #expect(try role.credentials(stop: stop)?.accessKey == "ASIAFIRST")
        time.advance(1)
        let problem = #expect(throws: CredentialProblem.self) { try role.credentials(stop: stop) }
        guard case .expired("instance role front-role", _) = problem else {
            Issue.record("\(String(describing: problem))")
            return
        }
        service.fail("*", [])
        service.set(Self.path, Self.document("ASIASECOND", expires: "2026-11-25T00:00:00Z"))
        #expect(try role.credentials(stop: stop)?.accessKey == "ASIASECOND")
    }

    @Test func theSameOnesAgainAreNotAskedForWithEveryCall() throws {
        let role = role()
        _ = try role.credentials(stop: stop)
        time.advance(6 * 3600 - 800)
        _ = try role.credentials(stop: stop)
        let asked = service.requests.count
        _ = try role.credentials(stop: stop)
        #expect(service.requests.count == asked)
        time.advance(61)
        _ = try role.credentials(stop: stop)
        #expect(service.requests.count > asked)
    }

    @Test func refusedOnesAreAskedForAgain() throws {
        let role = role()
        _ = try role.credentials(stop: stop)
        service.set(Self.path, Self.document("ASIASECOND", expires: "2026-11-25T00:00:00Z"))
        #expect(try role.credentials(stop: stop)?.accessKey == "ASIAFIRST")
        role.invalidate()
        #expect(try role.credentials(stop: stop)?.accessKey == "ASIASECOND")
        let asked = service.requests.count
        #expect(try role.credentials(stop: stop)?.accessKey == "ASIASECOND")
        #expect(service.requests.count == asked)
    }

    @Test func refusedOnesAreNotGivenAgainWhileTheServiceIsDown() throws {
        let role = role()
        _ = try role.credentials(stop: stop)
        role.invalidate()
        service.fail("*", [.forever(.refused)])
        #expect(throws: MetadataProblem.self) { try role.credentials(stop: stop) }
    }

    @Test func aWrongClockDoesNotMakeThemUseless() throws {
        time.advance(365 * 86400)
        let role = role()
        #expect(try role.credentials(stop: stop)?.accessKey == "ASIAFIRST")
        #expect(log.text.contains("expired by this machine's clock"))
        let asked = service.requests.count
        #expect(try role.credentials(stop: stop)?.accessKey == "ASIAFIRST")
        #expect(service.requests.count == asked)
    }

    @Test func aStopEndsTheWaiting() {
        service.set(Self.path, "")
        service.onSleep { [stop] _ in stop.raise(signal: 15) }
        #expect(throws: StopReason.signal(15)) { try role().credentials(stop: stop) }
    }

    @Test(
        arguments: [
            ("2026-11-24T12:00:00Z", noon), ("2026-11-24T12:00:00.500Z", noon), ("1970-01-01T00:00:01Z", 1), ("", nil),
            ("2026-11-24", nil), ("yesterday", nil),
        ] as [(String, Int64?)])
    func timesAreRead(text: String, seconds: Int64?) {
        #expect(RoleCredentialsDocument.seconds(text) == seconds)
    }
}

@Suite struct IdentityCredentialChainTests {
    let scratch: ScratchDirectory
    let stop = StopFlag.bounded()
    let service = ScriptedMetadata()

    static let keys = ["AWS_ACCESS_KEY_ID": "AKIAENV", "AWS_SECRET_ACCESS_KEY": "MADE-UP-SECRET-ENV"]
    static let file = """
        # comment
        [default]
        aws_access_key_id = AKIADEFAULT
        aws_secret_access_key=MADE-UP-SECRET-FILE=+/
        s3 =
          max_concurrent_requests = 20

        [ rehearsal ]\r
        aws_access_key_id = AKIAREHEARSAL\r
        aws_secret_access_key = MADE-UP-SECRET-REHEARSAL\r
        aws_session_token = MADE-UP-SECRET-TOKEN\r
        [half]
        aws_access_key_id = AKIAHALF
        [assumed]
        role_arn = arn:aws:iam::123456789012:role/x
        source_profile = default
        [empty]
        ; nothing
        """

    init() throws {
        scratch = try ScratchDirectory()
        service.set(
            "/latest/meta-data/iam/security-credentials/front-role",
            IdentityRoleCredentialTests.document(expires: "2099-11-24T18:00:00Z"))
    }

    func chain(
        _ environment: [String: String], platform: InstanceIdentity.Platform? = .ec2, hasRole: Bool = true
    ) -> CredentialChain {
        let role = RoleCredentials(
            metadata: scriptedEC2(service, environment: environment), patience: .seconds(5), log: .silent,
            now: { Host.now }, pacing: .scripted(service))
        return CredentialChain(
            environment: environment, platform: platform, role: hasRole ? role : nil, log: .silent)
    }

    @Test func theEnvironmentComesFirst() throws {
        try scratch.write("home/.aws/credentials", Self.file)
        let environment = Self.keys.merging(["HOME": scratch("home"), "AWS_SESSION_TOKEN": "MADE-UP-SECRET-T"]) { $1 }
        let found = try chain(environment).credentials(stop: stop)
        #expect(
            found
                == Credentials(
                    accessKey: "AKIAENV", secretKey: Secret("MADE-UP-SECRET-ENV"),
                    sessionToken: Secret("MADE-UP-SECRET-T"),
                    origin: "environment"))
        #expect(service.requests.isEmpty)
    }

    @Test func theFileComesSecond() throws {
        try scratch.write("home/.aws/credentials", Self.file)
        let found = try chain(["HOME": scratch("home"), "AWS_ACCESS_KEY_ID": ""]).credentials(stop: stop)
        #expect(found?.accessKey == "AKIADEFAULT")
        #expect(found?.secretKey == Secret("MADE-UP-SECRET-FILE=+/"))
        #expect(found?.origin == "profile default")
        #expect(service.requests.isEmpty)
    }

    @Test func aProfileAndAFileCanBeNamed() throws {
        let path = try scratch.write("keys", Self.file)
        let found = try chain(["AWS_SHARED_CREDENTIALS_FILE": path, "AWS_PROFILE": "rehearsal"]).credentials(stop: stop)
        #expect(found?.accessKey == "AKIAREHEARSAL")
        #expect(found?.secretKey == Secret("MADE-UP-SECRET-REHEARSAL"))
        #expect(found?.sessionToken == Secret("MADE-UP-SECRET-TOKEN"))
        try scratch.write("home/keys", Self.file)
        let other = chain(["AWS_SHARED_CREDENTIALS_FILE": "~/keys", "HOME": scratch("home")])
        #expect(try other.credentials(stop: stop)?.accessKey == "AKIADEFAULT")
    }

    @Test(arguments: [[:], ["HOME": "/nonexistent"], ["AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""]])
    func theRoleComesLast(environment: [String: String]) throws {
        #expect(try chain(environment).credentials(stop: stop)?.accessKey == "ASIAFIRST")
        #expect(try chain(environment, platform: nil).credentials(stop: stop)?.accessKey == "ASIAFIRST")
    }

    @Test(arguments: [InstanceIdentity.Platform.nocloud, .recorded, .none])
    func onOtherPlatformsThereIsNoRole(platform: InstanceIdentity.Platform) throws {
        #expect(try chain([:], platform: platform).credentials(stop: stop) == nil)
        #expect(service.requests.isEmpty)
    }

    @Test func whereNobodyKnowsThePlatformForeignAnswersAreNone() throws {
        service.fail("*", [.forever(.answer(404))])
        #expect(try chain([:], platform: nil).credentials(stop: stop) == nil)
        #expect(throws: MetadataProblem.self) { try chain([:], platform: .ec2).credentials(stop: stop) }
    }

    @Test func aSilentServiceIsNotNone() throws {
        service.fail("*", [.forever(.refused)])
        #expect(throws: MetadataProblem.self) { try chain([:], platform: nil).credentials(stop: stop) }
        #expect(try chain(["AWS_EC2_METADATA_DISABLED": "true"], platform: nil).credentials(stop: stop) == nil)
        #expect(try chain([:], platform: nil, hasRole: false).credentials(stop: stop) == nil)
    }

    @Test(arguments: [
        (["AWS_ACCESS_KEY_ID": "AKIAENV"], "AWS_SECRET_ACCESS_KEY"),
        (["AWS_SECRET_ACCESS_KEY": "MADE-UP-SECRET"], "AWS_ACCESS_KEY_ID"),
    ])
    func halfAKeyPairIsAnError(environment: [String: String], missing: String) {
        #expect(throws: CredentialProblem.incompleteEnvironment(missing: missing)) {
            try chain(environment).credentials(stop: stop)
        }
    }

    @Test(arguments: [
        ("half", "the profile half has no aws_secret_access_key"),
        ("assumed", "the profile assumed uses role_arn, which amorce does not; it needs a key pair"),
        ("empty", "has no key pair for the profile empty"), ("absent", "has no key pair for the profile absent"),
    ])
    func aNamedProfileMustHaveAKeyPair(profile: String, why: String) throws {
        let path = try scratch.write("keys", Self.file)
        #expect(throws: CredentialProblem.file(path: path, why: why)) {
            try chain(["AWS_SHARED_CREDENTIALS_FILE": path, "AWS_PROFILE": profile]).credentials(stop: stop)
        }
    }

    @Test func aNamedFileMustBeThere() {
        let path = scratch("absent")
        #expect(throws: CredentialProblem.file(path: path, why: "there is no such file")) {
            try chain(["AWS_SHARED_CREDENTIALS_FILE": path]).credentials(stop: stop)
        }
    }

    @Test func aRefusalReachesTheRole() throws {
        let chain = chain([:])
        _ = try chain.credentials(stop: stop)
        service.set(
            "/latest/meta-data/iam/security-credentials/front-role",
            IdentityRoleCredentialTests.document("ASIASECOND", expires: "2099-11-24T18:00:00Z"))
        chain.invalidate()
        #expect(try chain.credentials(stop: stop)?.accessKey == "ASIASECOND")
    }
}
