import HostSystem
import TestSupport
import Testing

@testable import CloudPlatform

@Suite struct IdentityNoCloudTests {
    let scratch: ScratchDirectory
    let stop = StopFlag.bounded()
    static let folder = "var/lib/cloud/seed/nocloud"
    static let second = "var/lib/cloud/seed/nocloud-net"

    init() throws { scratch = try ScratchDirectory() }

    var seed: NoCloudSeed { NoCloudSeed(layout: HostLayout(root: scratch.path)) }

    @Test func aWholeSeedIsRead() throws {
        try scratch.write(Self.folder + "/meta-data", "instance-id: iid-box-1\nlocal-hostname: front-1\n")
        try scratch.write(Self.folder + "/user-data", "#amorce\napp: boutique\n")
        let data = try #require(try seed.read(stop: stop))
        #expect(
            data.identity == InstanceIdentity(platform: .nocloud, id: "iid-box-1", tags: ["local-hostname": "front-1"]))
        #expect(data.userData == Secret("#amorce\napp: boutique\n"))
        #expect(data.source == "the NoCloud seed in \(scratch.path)/\(Self.folder)")
    }

    @Test func noSeedIsAnotherPlatform() throws {
        #expect(try seed.read(stop: stop) == nil)
    }

    @Test func emptyFilesAreASeed() throws {
        try scratch.write(Self.folder + "/meta-data", "")
        try scratch.write(Self.folder + "/user-data", "")
        let data = try #require(try seed.read(stop: stop))
        #expect(data.identity == InstanceIdentity(platform: .nocloud, id: "nocloud"))
        #expect(data.userData == nil)
    }

    @Test(arguments: ["meta-data", "user-data"])
    func halfASeedIsSkipped(half: String) throws {
        let log = LogRecorder()
        try scratch.write(Self.folder + "/" + half, "instance-id: iid-half\n")
        let seed = NoCloudSeed(layout: HostLayout(root: scratch.path), log: log.log)
        #expect(try seed.read(stop: stop) == nil)
        #expect(
            log.text.contains("detail: ") && log.text.contains(half == "meta-data" ? "no user-data" : "no meta-data"))
        try scratch.write(Self.second + "/meta-data", "instance-id: iid-second\n")
        try scratch.write(Self.second + "/user-data", "")
        #expect(try seed.read(stop: stop)?.identity.id == "iid-second")
    }

    @Test func theFirstFolderWins() throws {
        for (folder, id) in [(Self.folder, "iid-1"), (Self.second, "iid-2")] {
            try scratch.write(folder + "/meta-data", "instance-id: \(id)\n")
            try scratch.write(folder + "/user-data", "")
        }
        #expect(try seed.read(stop: stop)?.identity.id == "iid-1")
    }

    @Test func aSeedThatCannotBeReadIsAnError() throws {
        try Files.makeDirectories(scratch(Self.folder + "/meta-data"))
        try scratch.write(Self.folder + "/user-data", "")
        #expect(throws: MetadataProblem.file(path: scratch(Self.folder + "/meta-data"), why: "Is a directory")) {
            try seed.read(stop: stop)
        }
    }

    @Test func aSeedWithoutEndIsRefused() throws {
        try scratch.write(Self.folder + "/meta-data", "")
        try scratch.write(Self.folder + "/user-data", [UInt8](repeating: 0x61, count: (1 << 20) + 1))
        #expect(throws: MetadataProblem.tooLarge(item: scratch(Self.folder + "/user-data"), limit: 1 << 20)) {
            try seed.read(stop: stop)
        }
    }

    @Test(arguments: [
        ("instance-id: a\n", ["instance-id": "a"]),
        ("# c\n---\ninstance-id: a # why\n", ["instance-id": "a"]),
        ("\u{feff}instance-id: a\r\nlocal-hostname: b\r\n", ["instance-id": "a", "local-hostname": "b"]),
        ("\"instance-id\": 'a: #b'\n", ["instance-id": "a: #b"]),
        ("instance-id:   \"a b\"  # c\n", ["instance-id": "a b"]),
        ("instance-id: http://a/b#c\n", ["instance-id": "http://a/b#c"]),
        ("network-interfaces: |\n  iface eth0 inet dhcp\ninstance-id: a\n", ["instance-id": "a"]),
        ("public-keys:\n  - ssh-ed25519 AAAA\ninstance-id: a\n", ["instance-id": "a"]),
        ("instance-id: a\n...\ninstance-id: b\n", ["instance-id": "a"]),
        ("{\"instance-id\": \"a\", \"list\": [1], \"n\": 2}\n", ["instance-id": "a"]),
        ("  {\"instance-id\": \"a\"}", ["instance-id": "a"]),
        ("not yaml at all\n", [:]),
        ("", [:]),
    ])
    func flatMetadataIsRead(text: String, values: [String: String]) throws {
        #expect(try NoCloudSeed.values(in: Array(text.utf8), path: "m") == values)
    }

    @Test(arguments: [
        Array("instance-id: \"a\\n\"".utf8), Array("instance-id: 'a".utf8), Array("instance-id: *a".utf8),
        Array("instance-id: \"a\" b".utf8), Array("{".utf8), Array("{\"a\": }".utf8), [0x61, 0x3a, 0x20, 0xff],
        Array("instance-id: a\u{0}".utf8), Array("instance-id: \u{1b}[31m".utf8),
    ])
    func whatNeedsARealParserIsRefused(bytes: [UInt8]) {
        #expect(throws: MetadataProblem.self) { try NoCloudSeed.values(in: bytes, path: "m") }
    }
}

@Suite struct IdentityRecordingTests {
    let scratch: ScratchDirectory
    let stop = StopFlag.bounded()

    init() throws { scratch = try ScratchDirectory() }

    func read(_ text: String) throws -> InstanceData? {
        try RecordedMetadata(file: try scratch.write("instance.json", text)).read(stop: stop)
    }

    @Test func aWholeRecordingIsRead() throws {
        let data = try #require(
            try read(
                #"""
                {
                    "instance-id": "i-0123456789abcdef0", "platform": "ec2", "region": "eu-west-1", "zone": "eu-west-1a",
                    "address": "10.0.1.20", "type": "t3.small", "image": "ami-1", "account": "123456789012",
                    "tags": { "Name": "front" }, "autoscaling-target-state": "InService", "user-data": "#amorce\napp: b\n"
                }
                """#))
        #expect(
            data.identity
                == InstanceIdentity(
                    platform: .ec2, id: "i-0123456789abcdef0", region: "eu-west-1", zone: "eu-west-1a",
                    address: "10.0.1.20", type: "t3.small", image: "ami-1", account: "123456789012",
                    tags: ["Name": "front"], autoscalingTargetState: "InService"))
        #expect(data.userData == Secret("#amorce\napp: b\n"))
        #expect(data.source == "the recording \(scratch("instance.json"))")
    }

    @Test func theIdentifierAloneIsEnough() throws {
        let data = try #require(try read(#"{"instance-id":"front-1"}"#))
        #expect(data.identity == InstanceIdentity(platform: .recorded, id: "front-1"))
        #expect(data.userData == nil)
    }

    @Test func bytesAreRecordedInBase64() throws {
        #expect(
            try read(#"{"instance-id":"f","user-data-base64":"H4sI/w=="}"#)?.userData
                == Secret(bytes: [0x1f, 0x8b, 8, 0xff]))
    }

    @Test(arguments: [
        ("", "is not a JSON object"), ("[]", "is not a JSON object"), ("<html>", "is not a JSON object"),
        (#"{"instance-id":"f""#, "is not a JSON object"), ("{}", "has no \"instance-id\""),
        (#"{"instance-id":""}"#, "has no \"instance-id\""),
        (#"{"instance-id":7}"#, "has a \"instance-id\" that is not a string"),
        (#"{"instance-id":"f","regoin":"x"}"#, "has the unknown key \"regoin\""),
        (#"{"instance-id":"f","region":null}"#, "has a \"region\" that is not a string"),
        (#"{"instance-id":"f","tags":[]}"#, "has \"tags\" that are not an object"),
        (#"{"instance-id":"f","tags":{"a":1}}"#, "has a tag that is not a string"),
        (#"{"instance-id":"f","platform":"azure"}"#, "has a \"platform\" that is none of ec2, nocloud, recorded, none"),
        (#"{"instance-id":"f","user-data-base64":"%%"}"#, "has a \"user-data-base64\" that is not base64"),
        (
            #"{"instance-id":"f","user-data":"a","user-data-base64":"YQ=="}"#,
            "has both \"user-data\" and \"user-data-base64\""
        ),
    ])
    func malformedRecordingsAreRefused(text: String, why: String) {
        #expect(throws: MetadataProblem.file(path: scratch("instance.json"), why: why)) { try read(text) }
    }

    @Test func anAbsentRecordingIsAnError() {
        #expect(throws: MetadataProblem.file(path: scratch("absent"), why: "No such file or directory")) {
            try RecordedMetadata(file: scratch("absent")).read(stop: stop)
        }
    }
}

@Suite struct IdentityOrderTests {
    let scratch: ScratchDirectory
    let service = ScriptedMetadata()
    let stop = StopFlag.bounded()
    let log = LogRecorder()

    init() throws { scratch = try ScratchDirectory() }

    func metadata(isSeedFirst: Bool = false, environment: [String: String] = [:]) -> InstanceMetadata {
        let seed = NoCloudSeed(layout: HostLayout(root: scratch.path), log: log.log)
        return InstanceMetadata(
            providers: isSeedFirst
                ? [seed, scriptedEC2(service, environment: environment)]
                : [scriptedEC2(service, environment: environment), seed],
            log: log.log)
    }

    func writeSeed() throws {
        try scratch.write("var/lib/cloud/seed/nocloud/meta-data", "instance-id: iid-box\n")
        try scratch.write("var/lib/cloud/seed/nocloud/user-data", "")
    }

    @Test func whereSeveralKnowTheOrderDecidesAndIsLogged() throws {
        try writeSeed()
        #expect(try metadata().read(stop: stop).identity.platform == .ec2)
        #expect(
            log.text.contains(
                "detail: this instance is i-0123456789abcdef0 (t3.small, eu-west-1a), by EC2 instance metadata at"))
        #expect(log.text.contains("not asked, because the order is fixed: NoCloud seed"))
    }

    @Test func aSeedServesWhereTheNetworkHasNothing() throws {
        try writeSeed()
        service.fail("*", [.forever(.refused)])
        #expect(try metadata().read(stop: stop).identity.id == "iid-box")
        #expect(log.text.contains("warning: instance metadata at http://169.254.169.254 does not answer"))
        service.fail("*", [.forever(.answer(404))])
        #expect(try metadata().read(stop: stop).identity.id == "iid-box")
        #expect(
            try metadata(environment: ["AWS_EC2_METADATA_DISABLED": "true"]).read(stop: stop).identity.id == "iid-box")
    }

    @Test(arguments: [ScriptedMetadata.Step.answer(503), .answerTimeout, .answer(403), .answer(200, "<html>")])
    func aServiceThatIsThereAndFailsIsNotReplacedByASeed(step: ScriptedMetadata.Step) throws {
        try writeSeed()
        service.fail("*", [.forever(step)])
        #expect(throws: MetadataProblem.self) { try metadata().read(stop: stop) }
    }

    @Test func silenceAloneIsAnErrorAndNotAnAbsence() {
        service.fail("*", [.forever(.connectTimeout)])
        let problem = #expect(throws: MetadataProblem.self) { try metadata().read(stop: stop) }
        guard case .unreachable = problem else {
            Issue.record("\(String(describing: problem))")
            return
        }
    }

    @Test func aMachineWithoutAnyIsNone() throws {
        let data = try metadata(environment: ["AWS_EC2_METADATA_DISABLED": "true"]).read(stop: stop)
        #expect(data.identity == InstanceIdentity(platform: .none, id: ""))
        #expect(data.userData == nil)
        service.fail("*", [.forever(.answer(404))])
        #expect(try metadata().read(stop: stop).identity.platform == .none)
    }

    @Test func theOtherOrderDecidesOtherwise() throws {
        try writeSeed()
        #expect(try metadata(isSeedFirst: true).read(stop: stop).identity.id == "iid-box")
        #expect(service.requests.isEmpty)
        try Files.removeTree(scratch("var"))
        #expect(try metadata(isSeedFirst: true).read(stop: stop).identity.platform == .ec2)
    }

    @Test func aStopIsNoFault() throws {
        stop.raise(signal: 2)
        #expect(throws: StopReason.signal(2)) { try metadata().read(stop: stop) }
        #expect(service.requests.isEmpty)
    }
}

@Suite struct IdentitySecrecyTests {
    /// Every type of this part that holds something secret, printed in every way there is.
    @Test func nothingSecretIsPrinted() throws {
        let service = ScriptedMetadata()
        service.set("/latest/user-data", "#amorce\npassword: MADE-UP-SECRET\n")
        service.set(
            "/latest/meta-data/iam/security-credentials/front-role",
            IdentityRoleCredentialTests.document(expires: "2099-11-24T18:00:00Z"))
        let log = LogRecorder()
        let stop = StopFlag.bounded()
        let metadata = scriptedEC2(service, log: log.log)
        let data = try #require(try metadata.read(stop: stop))
        let role = RoleCredentials(
            metadata: metadata, patience: .seconds(1), log: log.log, now: { Host.now }, pacing: .scripted(service))
        let credentials = try #require(try role.credentials(stop: stop))
        let environment = [
            "AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "MADE-UP-SECRET",
            "AWS_SESSION_TOKEN": "MADE-UP-SECRET",
        ]
        let chain = CredentialChain(environment: environment, platform: .ec2, role: role, log: log.log)
        let userData = try #require(data.userData)
        let settings = try UserData.settings(in: userData)
        #expect(settings.first?.text.contains("MADE-UP-SECRET") == true)
        let things: [Any] = [
            data, metadata, role, credentials, chain, settings, settings[0], service.requests[0], service.requests[3],
            scriptedEC2(service, environment: environment),
            UserDataProblem(.notText, origin: "user-data"),
            try SharedCredentialsFile.credentials(
                profile: "default", in: "[default]\naws_access_key_id=A\naws_secret_access_key=MADE-UP-SECRET",
                path: "f") as Any,
        ]
        for thing in things {
            var dumped = ""
            dump(thing, to: &dumped)
            #expect(!dumped.contains("MADE-UP-SECRET"), "dump of \(type(of: thing))")
            #expect(!String(describing: thing).contains("MADE-UP-SECRET"), "\(type(of: thing))")
            #expect(!String(reflecting: thing).contains("MADE-UP-SECRET"), "\(type(of: thing))")
        }
        #expect(!log.text.contains("MADE-UP-SECRET"))
    }
}
