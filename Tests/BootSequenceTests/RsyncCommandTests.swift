import HostSystem
import Testing

@testable import BootSequence

@Suite struct RsyncSourceTests {
    @Test(arguments: [
        ("rsync://host.example/boutique/", "rsync://host.example/boutique/"),
        ("rsync://host.example/boutique", "rsync://host.example/boutique/"),
        ("RSYNC://front@host:8730/m/a//b/./c/", "rsync://front@host:8730/m/a/b/c/"),
        ("rsync://[fd00::1]/m/", "rsync://[fd00::1]/m/"),
        ("rsync://u@[fe80::1%eth0]:99/m/", "rsync://u@[fe80::1%eth0]:99/m/"),
        ("rsync://host/m/a b/ü", "rsync://host/m/a b/ü/"),
        ("user@host:/srv/site/", "user@host:/srv/site/"),
        ("host:site", "host:site/"),
        ("u@[fd00::1]:/srv", "u@[fd00::1]:/srv/"),
        ("ssh://u@host:2222/srv/site", "u@host:/srv/site/"),
        ("ssh://host/", "host://"),
        ("/srv/site", "/srv/site/"),
        ("/srv//a:b/*/", "/srv/a:b/*/"),
        ("file:///srv/my%20site/", "/srv/my site/"),
    ])
    func accepted(_ text: String, _ operand: String) throws {
        #expect(try RsyncSource(parsing: text).operand == operand)
    }

    @Test(arguments: [
        ("", RsyncSource.Problem.empty), ("-e sh:/x", .leadingDash), ("--rsh=x", .leadingDash),
        ("/srv\n/x", .controlCharacter), ("host:/a\u{0}b", .controlCharacter), ("file:///a%0Ab", .controlCharacter),
        ("rsync://u:MADE-UP-SECRET@host/m/", .passwordInAddress), ("rsync://host/", .noModule),
        ("rsync://host", .noModule), ("rsync:///m/", .badHost), ("rsync://-host/m/", .badHost),
        ("rsync://host:0/m/", .badPort), ("rsync://host:65536/m/", .badPort), ("rsync://[fd00::1/m/", .badHost),
        ("rsync://[host]/m/", .badHost), ("rsync://-u@host/m/", .badUser), ("-u@host:/x", .leadingDash),
        ("a b@host:/x", .badUser), ("rsync://host/m/../n/", .parentComponent), ("rsync://host/m*/", .wildcard),
        ("host:/srv/[ab]", .wildcard), ("host::m/p", .daemonOverSSH), ("host:", .unknownForm),
        ("host:-x", .unknownForm),
        ("relative/path", .notAbsolute), ("https://host/x", .unknownForm), ("file://relative", .notAbsolute),
        ("file:///a%zz", .badEncoding), ("/", .unknownForm), ("/srv/../etc", .parentComponent),
    ])
    func refused(_ text: String, _ problem: RsyncSource.Problem) {
        #expect(throws: problem) { try RsyncSource(parsing: text) }
        #expect(!problem.description.contains("MADE-UP-SECRET"))
    }
}

@Suite struct RsyncCommandTests {
    private func command(_ settings: DeltaSettings, _ version: [Int] = [3, 5, 0]) throws -> RsyncCommand {
        try RsyncCommand(settings, version: RsyncVersion(version))
    }

    @Test func transferFromADaemon() throws {
        var settings = DeltaSettings(from: "rsync://host/m/", user: "front", password: Secret("MADE-UP-SECRET"))
        settings.exclude = ["*.log", "!"]
        settings.connectTimeout = .milliseconds(1500)
        let words = try command(settings).transfer(
            into: "/r", protecting: ["var/uploads/", "./odd[1]*"], owner: (0, 33), deletingAtMost: 7,
            passwordFile: "/run/amorce/x/password")
        #expect(
            words == [
                "rsync", "--no-motd", "--no-human-readable", "--outbuf=N", "--contimeout=2",
                "--password-file=/run/amorce/x/password", "--info=progress2", "--max-delete=7", "--recursive",
                "--links",
                "--times", "--perms", "--chmod=u+rwX,a-s,-t", "--owner", "--group", "--numeric-ids", "--chown=0:33",
                "--no-devices", "--no-specials", "--safe-links", "--delete-delay", "--partial-dir=.amorce-partial",
                "--filter=- /.amorce-site", "--filter=- /var/uploads", "--filter=- /odd\\[1]\\*", "--filter=- *.log",
                "--filter=- !", "--out-format=amorce:%i:%l:%n", "--", "rsync://front@host/m/", "/r/",
            ])
    }

    @Test func nothingForbiddenInAnyForm() throws {
        for from in ["rsync://host/m/", "u@host:/x/", "/srv/x/"] {
            let command = try command(DeltaSettings(from: from))
            let all =
                command.plan(into: "/r", protecting: [], owner: nil, passwordFile: nil)
                + command.transfer(into: "/r", protecting: [], owner: nil, deletingAtMost: 0, passwordFile: nil)
            for word in [
                "--ignore-errors", "--inplace", "--timeout", "--insecure-links", "--trust-sender", "--delete-before",
            ] {
                #expect(!all.contains { $0.hasPrefix(word) })
            }
            #expect(all.contains("--max-delete=0"))
        }
    }

    @Test func shellOfSSH() throws {
        var settings = DeltaSettings(from: "ssh://host:2222/srv/", user: "front")
        settings.sshKey = "/etc/amorce/id_ed25519"
        settings.knownHosts = "/etc/amorce/known_hosts"
        let words = try command(settings).fetchMarker(into: "/tmp/x", passwordFile: nil)
        let shell = try #require(words.firstIndex(of: "-e").map { words[$0 + 1] })
        #expect(
            shell == "ssh -T -x -i /etc/amorce/id_ed25519 -p 2222 -o BatchMode=yes -o StrictHostKeyChecking=yes "
                + "-o ConnectTimeout=10 -o ConnectionAttempts=1 -o ForwardAgent=no -o ClearAllForwardings=yes "
                + "-o PermitLocalCommand=no -o ControlMaster=no -o ControlPath=none -o IdentitiesOnly=yes "
                + "-o UserKnownHostsFile=/etc/amorce/known_hosts -o GlobalKnownHostsFile=/dev/null")
        #expect(words.suffix(3) == ["--", "front@host:/srv/.amorce-site", "/tmp/x/"])
        #expect(!words.contains("--protect-args"))
        #expect(try command(settings, [3, 2, 3]).fetchMarker(into: "/t", passwordFile: nil).contains("--protect-args"))
    }

    @Test(arguments: ["/etc/my key", "/etc/k'ey", "/etc/%h", "/etc/${HOME}", "key", "~/key", "/etc/k\"y", "/e\\x"])
    func keysThatSomethingWouldTakeApart(_ path: String) {
        var settings = DeltaSettings(from: "host:/x")
        settings.sshKey = path
        #expect(throws: RsyncSource.Problem.self) { try command(settings) }
        settings.sshKey = nil
        settings.knownHosts = path
        #expect(throws: RsyncSource.Problem.self) { try command(settings) }
    }

    @Test func otherSettingsThatAreRefused() {
        func refused(_ change: (inout DeltaSettings) -> Void) -> Bool {
            var settings = DeltaSettings(from: "rsync://host/m/")
            change(&settings)
            return (try? command(settings)) == nil
        }
        #expect(refused { $0.marker = "../x" })
        #expect(refused { $0.marker = "/x" })
        #expect(refused { $0.marker = "" })
        #expect(refused { $0.marker = "*" })
        #expect(refused { $0.exclude = [""] })
        #expect(refused { $0.exclude = ["a\nb"] })
        #expect(refused { $0.refuseDeletingMoreThan = 1.5 })
        #expect(refused { $0.refuseDeletingMoreThan = .nan })
        #expect(refused { $0.password = Secret("MADE-UP-SECRET\nsecond line") })
        #expect(refused { $0.password = Secret("") })
        #expect(refused { $0.password = Secret(String(repeating: "x", count: 500)) })
        #expect(refused { $0.user = "a@b" })
        #expect(
            refused {
                $0.from = "rsync://a@host/m/"; $0.user = "b"
            })
        #expect(
            !refused {
                $0.from = "rsync://a@host/m/"; $0.user = "a"
            })
    }

    @Test(arguments: [
        ("rsync  version 3.5.0  protocol version 32\nCopyright", [3, 5, 0]),
        ("rsync  version v3.2.7dev  protocol version 31", [3, 2, 7]), ("rsync  version 3.10.1pre2", [3, 10, 1]),
        ("openrsync: protocol version 29", nil), ("", nil), ("rsync: command not found", nil),
    ])
    func versions(_ text: String, _ parts: [Int]?) {
        #expect(RsyncVersion(parsing: text)?.parts == parts)
    }

    @Test func versionOrder() {
        #expect(RsyncVersion([3, 4, 2]) < .oldestSafe)
        #expect(RsyncVersion([3, 10]) >= .oldestSafe)
        #expect(RsyncVersion([3, 0, 9]) < .oldestUsable)
    }
}

@Suite struct RsyncOutputTests {
    @Test(arguments: [
        (">f+++++++++", "created"), ("cd+++++++++", "created"), ("cL+++++++++", "created"), (">f.st......", "changed"),
        ("cLc.T......", "changed"), (".f...p.....", "metadata"), (".f....og...", "metadata"),
        (".L..t......", "metadata"),
        ("*deleting  ", "deleted"), (".f..t......", "metadata"),
    ])
    func kinds(_ code: String, _ kind: String) throws {
        let item = try #require(RsyncItem(Array("amorce:\(code):12:dir/name".utf8)[...]))
        #expect(item.kind?.rawValue == kind)
        #expect(item.size == 12)
    }

    @Test func directoryTimesAreNoChange() {
        #expect(RsyncItem(Array("amorce:.d..t......:4096:./".utf8)[...])?.kind == nil)
        #expect(RsyncItem(Array("amorce:.d..tp.....:4096:a/".utf8)[...])?.kind == .metadata)
    }

    @Test(arguments: [
        ("plain", Array("plain".utf8)), ("nl\\#012x", Array("nl\nx".utf8)), ("\\#134#012", Array("\\#012".utf8)),
        ("caf\\#303\\#251", Array("café".utf8)), ("a\\b", Array("a\\b".utf8)), ("\\#01", Array("\\#01".utf8)),
        ("\\#999", Array("\\#999".utf8)), ("a:b:c", Array("a:b:c".utf8)), ("-rf", Array("-rf".utf8)),
    ])
    func names(_ escaped: String, _ bytes: [UInt8]) {
        #expect(RsyncItem(Array("amorce:>f+++++++++:1:\(escaped)".utf8)[...])?.name == bytes)
    }

    @Test(arguments: [
        "", "amorce:", "amorce:>f+:1:x", "amorce:>f+++++++++", "amorce:>f+++++++++:x:y",
        "cannot delete non-empty directory: v",
    ])
    func otherLines(_ line: String) {
        #expect(RsyncItem(Array(line.utf8)[...]) == nil)
    }

    @Test(arguments: [1, 2, 7, 4096])
    func everySplitReadsTheSame(_ size: Int) {
        let text =
            "\r              1   2%    0.98kB/s    0:00:00 (xfr#1, to-chk=2/4)\namorce:>f+++++++++:1:a\n"
            + "\r        1048577 100%    0.98MB/s    0:00:00 (xfr#12, ir-chk=2/4)\r"
            + "ignoring unsafe symlink \"x\" -> \"/etc\"\n"
            + "amorce:*deleting  :0:b\n\nNumber of files: 14 (reg: 7, dir: 3, link: 3, special: 1)\n"
        let bytes = Array(text.utf8)
        var output = RsyncOutput()
        for start in stride(from: 0, to: bytes.count, by: size) {
            _ = output.feed(bytes[start..<min(bytes.count, start + size)])
        }
        #expect(output.items.map(\.name) == [Array("a".utf8), Array("b".utf8)])
        #expect(output.progress == Progress(bytes: 1_048_577, items: 12))
        #expect(output.sourceFiles == 10)
        #expect(output.unsafeLinks == 1)
    }

    @Test func aNameCountsOnceHoweverManyAttemptsTouchedIt() throws {
        let item = try #require(RsyncItem(Array("amorce:>f+++++++++:5:a".utf8)[...]))
        var tally = RsyncTally()
        tally.add([item])
        tally.add([item])
        let plan = tally.plan(totalFiles: 1, existing: 0, deletionsAllowed: 0)
        #expect(plan.created == 1)
        #expect(plan.bytes == 5)
    }
}

@Suite struct RsyncFailureTests {
    @Test(arguments: [
        (Int32(1), "ERROR: password file must not be other-accessible", RsyncFailure.badPasswordFile("")),
        (1, "unknown option", .refused("")), (4, "The server is configured to refuse --delete", .refused("")),
        (5, "@ERROR: auth failed on module m", .authentication("")),
        (5, "@ERROR: Unknown module 'm'", .unknownModule("")),
        (5, "@ERROR: chdir failed", .missingPath("")),
        (5, "@ERROR: access denied to m from h (1.2.3.4)", .accessDenied("")),
        (5, "@ERROR: max connections (1) reached -- try again later", .busy("")),
        (5, "rsync: server sent \"HTTP/1.1 400 Bad\" rather than greeting", .wrongServer("")),
        (5, "rsync: did not see server greeting", .connectionLost("")),
        (10, "Connection refused", .unreachable("")), (35, "timeout waiting for daemon connection", .unreachable("")),
        (11, "write failed: No space left on device (28)", .diskFull("")), (11, "read-only", .fileError("")),
        (12, "connection unexpectedly closed", .connectionLost("")), (30, "timeout", .connectionLost("")),
        (12, "bash: line 1: rsync: command not found", .wrongServer("")), (127, "", .wrongServer("")),
        (23, "send_files failed to open \"x\": Permission denied (13)", .partial("")),
        (23, "mkdir failed: No space left on device (28)", .diskFull("")),
        (24, "file has vanished: x", .vanished("")), (25, "max-delete", .deletionLimit(would: nil, of: 0, allowed: 0)),
        (255, "Host key verification failed.", .hostKey("")),
        (255, "Permission denied (publickey)", .authentication("")),
        (255, "connect to host x port 22: Connection refused", .unreachable("")), (255, "?", .connectionLost("")),
        (99, "", .other(99, "")),
    ])
    func meanings(_ code: Int32, _ text: String, _ expected: RsyncFailure) {
        let failure = RsyncFailure(code: code, errors: Array(text.utf8))
        #expect(failure.description.prefix { $0 != ":" } == expected.description.prefix { $0 != ":" })
        #expect(failure.status == expected.status)
    }

    @Test func policyAppliesToAnAbsentOrchestratorAlone() {
        #expect(RsyncFailure.unreachable("").isUnreachable)
        #expect(RsyncFailure.stalled(.seconds(60)).isUnreachable)
        #expect(!RsyncFailure.authentication("").isUnreachable)
        #expect(!RsyncFailure.markerMissing("m").isUnreachable)
        #expect(!RsyncFailure.incomplete(.connectionLost("")).isUnreachable)
        #expect(RsyncFailure.incomplete(.connectionLost("")).isWorthRetrying)
    }

    @Test func retries() {
        func outcomes(_ failure: RsyncFailure) -> [RsyncRetry] {
            guard let kind = RsyncRetry.Class(failure) else { return [] }
            return (1...12).map { RsyncRetry(kind, times: $0) }
        }
        #expect(outcomes(.unreachable("")).count { $0 != .giveUp } == 2)
        #expect(outcomes(.busy("")).count { $0 != .giveUp } == 10)
        #expect(outcomes(.stalled(.zero)).count { $0 != .giveUp } == 3)
        #expect(outcomes(.partial("")).prefix(2) == [.again(after: .seconds(1)), .giveUp])
        #expect(outcomes(.vanished("")).prefix(2) == [.again(after: .seconds(1)), .accept])
        for failure in [
            RsyncFailure.refused(""), .fileError(""), .diskFull(""), .authentication(""), .wrongServer(""),
            .emptySource,
            .deletionLimit(would: nil, of: 1, allowed: 0), .markerMissing(""), .missingPath(""), .killed(9),
        ] {
            #expect(outcomes(failure).isEmpty)
        }
    }
}
