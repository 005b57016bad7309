import Foundation
import HostSystem
import TestSupport
import Testing

@testable import CloudPlatform

@Suite struct IdentityUserDataTests {
    static let yaml = "#amorce\napp: boutique\nvalues: { motto: \"été = 20%\" }\n"
    static let plain = "app: boutique\n"

    static func read(_ text: String) throws -> [UserDataSettings] { try UserData.settings(in: Secret(text)) }
    static func read(_ bytes: [UInt8]) throws -> [UserDataSettings] { try UserData.settings(in: Secret(bytes: bytes)) }
    static func gzip(_ bytes: [UInt8]) throws -> [UInt8] {
        let scratch = try ScratchDirectory()
        return try Program.check(["gzip", "-c", try scratch.write("data", bytes)])
    }
    static func base64(_ bytes: [UInt8]) -> String { Data(bytes).base64EncodedString(options: .lineLength76Characters) }

    static func message(_ parts: String..., type: String = "multipart/mixed", end: String = "--==edge==--\n") -> String
    {
        "Content-Type: \(type); boundary=\"==edge==\"\nMIME-Version: 1.0\n\n"
            + parts.map { "--==edge==\n\($0)\n" }.joined() + end
    }

    // MARK: As a whole

    @Test(arguments: [
        yaml, "\u{feff}" + yaml, yaml.replacingOccurrences(of: "\n", with: "\r\n"), "\n\n" + yaml,
        "#amorce \t\napp: x\n", "#amorce",
        "\u{feff}\r\n#amorce\r\napp: x",
    ])
    func itsOwnTextIsFound(text: String) throws {
        let found = try Self.read(text)
        #expect(found.count == 1)
        #expect(found.first?.firstLine == 1)
        #expect(found.first?.origin == "user-data")
        let expected = text.replacingOccurrences(of: "\u{feff}", with: "").replacingOccurrences(of: "\r\n", with: "\n")
        #expect(found.first?.text == expected)
    }

    /// Whatever is somebody else's: no settings, and no error.
    @Test(arguments: [
        "", "\n", "#!/bin/sh\n#amorce\nrm -rf /\n", "#cloud-config\npackages: [rsync]\n",
        "#cloud-config\nwrite_files:\n- path: /etc/amorce/conf.d/10-stack.yaml\n  content: |\n    #amorce\n    app: boutique\n",
        "#cloud-config-archive\n- type: text/x-amorce\n  content: x\n", "#include\nhttp://example.com/\n",
        "#amorce-config\nx: 1\n",
        "# amorce\napp: x\n", "##amorce\n", "#AMORCE\n", "app: boutique\n", "## template: jinja\n#cloud-config\n",
        "#cloud-boothook\n",
        "{\"ignition\": {\"version\": \"3.4.0\"}}", "<powershell>\n</powershell>",
        "Content-Type: text/plain\n\nhello\n",
        "MIME-Version: 1.0\n", "MIME-Version: 1.0\nContent-Type: multipart/mixed\n\n--x\n\n#amorce\n",
        "aGVsbG8gd29ybGQ=",
        "hello", "Zm9v", "--==edge==\n", "From: x\nMIME-Version: 1.0\n\n",
    ])
    func foreignDataIsNoneAndNoError(text: String) throws {
        #expect(try Self.read(text) == [])
    }

    @Test func bytesOfNoKnownKindAreNone() throws {
        #expect(try Self.read((0...255).map { UInt8($0) }) == [])
        #expect(try Self.read([0xff, 0xfe, 0x23, 0x00]) == [])
        #expect(try Self.read([UInt8](repeating: 0, count: 1000)) == [])
        #expect(try Self.read([0x1f]) == [])
    }

    @Test func gzipAndBase64AreUnwrapped() throws {
        let bytes = Array(Self.yaml.utf8)
        let expected = [UserDataSettings(text: Self.yaml, firstLine: 1, origin: "user-data")]
        #expect(try Self.read(try Self.gzip(bytes)) == expected)
        #expect(try Self.read(Self.base64(bytes)) == expected)
        #expect(try Self.read(Self.base64(try Self.gzip(bytes))) == expected)
        #expect(try Self.read(try Self.gzip(Array(Self.base64(bytes).utf8))) == expected)
        #expect(try Self.read(try Self.gzip(try Self.gzip(bytes))) == expected)
        let script = Array("#!/bin/sh\n".utf8)
        #expect(try Self.read(try Self.gzip(script)) == [])
        #expect(try Self.read(Self.base64(script)) == [])
    }

    // MARK: MIME

    @Test func partsAreFoundByTheirType() throws {
        let text = Self.message(
            "Content-Type: text/cloud-config\n\n#cloud-config\npackages: []",
            "Content-Type: text/x-amorce; charset=\"utf-8\"\nContent-Disposition: attachment; filename=\"front.yaml\"\n\n\(Self.plain)",
            "Content-Type: text/x-shellscript\n\n#!/bin/sh\necho",
            "\n#amorce\nkeep: 5")
        let found = try Self.read(text)
        #expect(
            found == [
                UserDataSettings(text: "app: boutique\n", firstLine: 13, origin: "user-data, part 2 (front.yaml)"),
                UserDataSettings(text: "#amorce\nkeep: 5", firstLine: 22, origin: "user-data, part 4"),
            ])
        let lines = text.split(separator: "\n", omittingEmptySubsequences: false)
        for settings in found {
            #expect(settings.text.hasPrefix(lines[settings.firstLine - 1]), "the line is the one in the message")
        }
        #expect(try Self.read(text.replacingOccurrences(of: "\n", with: "\r\n")) == found)
        #expect(try Self.read(try Self.gzip(Array(text.utf8))) == found)
        #expect(try Self.read(Self.base64(Array(text.utf8))) == found)
    }

    @Test(arguments: [
        ("7bit", "app: boutique"), ("8bit", "app: boutique"), ("binary", "app: boutique"), ("7BIT", "app: boutique"),
        ("base64", "YXBwOiBib3V0aXF1ZQ=="), ("BASE64", "YXBwOiBi\r\nb3V0aXF1ZQ"),
        ("base64", "YXBw\nOiBib3V0aXF1ZQ==\n"),
        ("quoted-printable", "app:=20bouti=\nque"), ("Quoted-Printable", "app: bou=74ique   "),
    ])
    func everyTransferEncodingIsRead(encoding: String, body: String) throws {
        let text = Self.message("Content-Type: text/x-amorce\nContent-Transfer-Encoding: \(encoding)\n\n\(body)")
        #expect(try Self.read(text).map(\.text) == ["app: boutique"])
    }

    @Test(arguments: [
        ("base64", "YXBwOiBib3V0aXF1ZQ="), ("base64", "YXBwO"), ("base64", "app: boutique"), ("base64", "YXBw=OiBi"),
        ("quoted-printable", "app=3"), ("quoted-printable", "app=zz"), ("quoted-printable", "a = b"),
        ("x-uuencode", "begin"),
    ])
    func aBrokenEncodingOfItsOwnPartIsAnError(encoding: String, body: String) throws {
        let header = "Content-Transfer-Encoding: \(encoding)\n\n\(body)"
        let problem = #expect(throws: UserDataProblem.self) {
            try Self.read(Self.message("Content-Type: text/x-amorce\n" + header))
        }
        #expect(problem == UserDataProblem(.encoding(encoding), origin: "user-data, part 1"))
        #expect(
            try Self.read(Self.message("Content-Type: text/x-shellscript\n" + header)) == [],
            "nobody else's is looked at")
        #expect(try Self.read(Self.message("Content-Type: text/plain\n" + header)) == [])
    }

    @Test func partsMayBeCompressedAndNested() throws {
        let packed = Self.base64(try Self.gzip(Array(Self.yaml.utf8)))
        let encoded = "Content-Transfer-Encoding: base64\n\n\(packed)"
        for type in ["text/x-amorce", "application/x-gzip", "application/gzip", "application/octet-stream"] {
            #expect(
                try Self.read(Self.message("Content-Type: \(type)\n\(encoded)")).map(\.text) == [Self.yaml], "\(type)")
        }
        let inner = Self.message("Content-Type: text/x-amorce\n\n\(Self.plain)")
            .replacingOccurrences(of: "==edge==", with: "==inner==")
        let nested = try Self.read(Self.message("Content-Type: text/plain\n\nx", inner))
        #expect(nested.map(\.text) == ["app: boutique\n"])
        #expect(nested.map(\.origin) == ["user-data, part 2, part 1"])
    }

    @Test(arguments: [
        "Content-Type: multipart/mixed;\n boundary=\"==edge==\"\nMIME-Version: 1.0\n\n--==edge==\nContent-Type: text/x-amorce\n\napp: x\n--==edge==--\n",
        "MIME-Version: 1.0\nX-Other: y\ncontent-type:multipart/mixed; charset=x; BOUNDARY=edge\n\npreamble\n--edge\nCONTENT-TYPE: TEXT/X-AMORCE\n\napp: x\n--edge--\nepilogue\n",
        "From nobody Tue Nov 24 03:00:00 2026\nContent-Type: multipart/mixed; boundary=edge\nMIME-Version: 1.0\n\n--edge\nContent-Type: text/x-amorce\n\napp: x\n--edge--\n",
        "Content-Type: multipart/mixed; boundary=edge\n\n--edge  \nContent-Type: text/x-amorce\n\napp: x",
        "\n\nContent-Type: text/x-amorce\nMIME-Version: 1.0\n\napp: x",
        "Content-Type: multipart/alternative; boundary='e'\nMIME-Version: 1.0\n\n--'e'\nContent-Type: text/x-amorce; name=\"a;b\"\n\napp: x\n--'e'--",
    ])
    func messagesAsPeopleWriteThem(text: String) throws {
        #expect(try Self.read(text).map { $0.text.trimmingCharacters(in: .newlines) } == ["app: x"])
    }

    @Test func aBoundaryInsideALineIsText() throws {
        let text = Self.message("Content-Type: text/x-amorce\n\na: --==edge==\n--==edge==x\nb: 1")
        #expect(try Self.read(text).map(\.text) == ["a: --==edge==\n--==edge==x\nb: 1"])
    }

    @Test func blankPartsAreNone() throws {
        #expect(
            try Self.read(Self.message("Content-Type: text/x-amorce\n\n", "Content-Type: text/x-amorce\n\n \n")) == [])
    }

    @Test func anotherCharacterSetIsRefusedWhereItMatters() throws {
        let part = "Content-Type: text/x-amorce; charset=iso-8859-1\n\n"
        #expect(try Self.read(Self.message(part + "app: x")).count == 1)
        #expect(throws: UserDataProblem(.notText, origin: "user-data, part 1")) {
            try Self.read(Self.message(part + "app: été"))
        }
        #expect(throws: UserDataProblem(.notText, origin: "user-data")) {
            try Self.read(Array("#amorce\n".utf8) + [0xe9])
        }
        #expect(throws: UserDataProblem(.notText, origin: "user-data")) { try Self.read(Array("#amorce\n".utf8) + [0]) }
    }

    // MARK: Limits

    @Test func whatIsTooLargeIsRefused() throws {
        let large = [UInt8](repeating: 0x23, count: UserData.limit + 1)
        #expect(throws: UserDataProblem(.tooLarge(limit: UserData.limit), origin: "user-data")) { try Self.read(large) }
        let bomb = try Self.gzip(Array("#amorce\n".utf8) + [UInt8](repeating: 0x20, count: 20 << 20))
        #expect(throws: UserDataProblem(.tooLarge(limit: UserData.limit), origin: "user-data")) { try Self.read(bomb) }
        // Three bombs that are each within the limit, and not together.
        let part =
            "Content-Type: application/gzip\nContent-Transfer-Encoding: base64\n\n"
            + Self.base64(try Self.gzip([UInt8](repeating: 0x20, count: 500 << 10)))
        #expect(try Self.read(Self.message(part, part)) == [])
        #expect(throws: UserDataProblem(.tooLarge(limit: UserData.limit), origin: "user-data, part 3")) {
            try Self.read(Self.message(part, part, part))
        }
    }

    @Test func gzipThatIsDamagedIsNotTakenForForeign() throws {
        let packed = try Self.gzip(Array(Self.yaml.utf8))
        #expect(throws: UserDataProblem(.gzip(.truncated), origin: "user-data")) { try Self.read(packed.dropLast(9)) }
        var flipped = packed
        flipped[packed.count - 5] ^= 1
        #expect(throws: UserDataProblem(.gzip(.damaged), origin: "user-data")) { try Self.read(flipped) }
    }

    @Test func wrappingHasAnEnd() throws {
        var bytes = Array(Self.yaml.utf8)
        for _ in 0..<12 { bytes = try Self.gzip(bytes) }
        #expect(throws: UserDataProblem.self) { try Self.read(bytes) }
        var text = "Content-Type: text/x-amorce\n\napp: x"
        for index in 0..<40 {
            text =
                "Content-Type: multipart/mixed; boundary=b\(index)x\nMIME-Version: 1.0\n\n--b\(index)x\n\(text)\n--b\(index)x--\n"
        }
        #expect(throws: UserDataProblem.self) { try Self.read(text) }
    }

    @Test func partsAreCounted() throws {
        let part = "--e\nContent-Type: text/x-amorce\n\napp: x\n"
        let head = "Content-Type: multipart/mixed; boundary=e\nMIME-Version: 1.0\n\n"
        #expect(try Self.read(head + String(repeating: part, count: 16) + "--e--").count == 16)
        #expect(throws: UserDataProblem(.tooMany(limit: 16), origin: "user-data")) {
            try Self.read(head + String(repeating: part, count: 17) + "--e--")
        }
        #expect(try Self.read(head + String(repeating: "--e\n\n", count: 100_000)) == [])
        #expect(try Self.read(head + String(repeating: "X: y\n", count: 100_000)) == [])
    }

    /// No cut and no flipped byte of a message traps, and none makes other text of the settings but at the cut.
    @Test func cutsAndNoiseAreSurvived() throws {
        let encoded = "Content-Transfer-Encoding: base64\n\n\(Self.base64(try Self.gzip(Array(Self.yaml.utf8))))"
        let message = Array(
            Self.message(
                "Content-Type: text/x-amorce\n\n\(Self.plain)", "Content-Type: application/gzip\n\(encoded)",
                "Content-Type: text/x-amorce; name=\"a\\\"b\"\nContent-Transfer-Encoding: quoted-printable\n\na=3D=\nb"
            ).utf8)
        for end in message.indices {
            let found = (try? Self.read(Array(message[..<end]))) ?? []
            #expect(found.count <= 3)
        }
        for index in message.indices {
            for byte: UInt8 in [0, 0x0a, 0x0d, 0x2d, 0x3d, 0x22, 0xff] {
                var noisy = message
                noisy[index] = byte
                let found = (try? Self.read(noisy)) ?? []
                #expect(found.count <= 3)
            }
        }
    }

    // MARK: cloud-init's own

    /// Messages that cloud-init's own program and Python's `email`, which it reads with, made.
    @Test func whatCloudInitMakesIsRead() throws {
        let scratch = try ScratchDirectory()
        try scratch.write("front.yaml", Self.yaml)
        try scratch.write("config.yaml", "#cloud-config\nruncmd: [amorce, boot]\n")
        try scratch.write("run.sh", "#!/bin/sh\namorce boot\n")
        let made = try Program.check([
            "cloud-init", "devel", "make-mime", "--force", "-a", scratch("config.yaml") + ":cloud-config", "-a",
            scratch("front.yaml") + ":x-amorce", "-a", scratch("run.sh") + ":x-shellscript",
        ])
        let found = try Self.read(made)
        #expect(found.map(\.text) == [Self.yaml])
        #expect(found.map(\.origin) == ["user-data, part 2 (front.yaml)"])
        #expect(try Self.read(try Self.gzip(made)) == found)
        #expect(try Self.read(Self.base64(made)) == found)
        let foreign = try Program.check([
            "cloud-init", "devel", "make-mime", "-a", scratch("config.yaml") + ":cloud-config", "-a",
            scratch("run.sh") + ":x-shellscript",
        ])
        #expect(try Self.read(foreign) == [])
    }

    @Test(arguments: [
        "MIMEText(body, 'x-amorce', 'utf-8')", "quoted(body)", "MIMEApplication(gzip.compress(body.encode()), 'gzip')",
    ])
    func whatPythonMakesIsRead(part: String) throws {
        let program = """
            import gzip, sys
            from email.mime.text import MIMEText
            from email.mime.multipart import MIMEMultipart
            from email.mime.application import MIMEApplication
            from email import charset
            body = sys.stdin.buffer.read().decode()
            def quoted(body):
                set = charset.Charset('utf-8')
                set.body_encoding = charset.QP
                return MIMEText(body, 'x-amorce', set)
            outer, inner = MIMEMultipart(), MIMEMultipart('related')
            inner.attach(MIMEText('#!/bin/sh', 'x-shellscript'))
            inner.attach(\(part))
            outer.attach(MIMEText('#cloud-config', 'cloud-config'))
            outer.attach(inner)
            sys.stdout.write(outer.as_string())
            """
        let long = Self.yaml + "# " + String(repeating: "é = long ", count: 30) + "\n"
        let made = try Program.check(["python3", "-c", program], input: Array(long.utf8))
        #expect(try Self.read(made).map(\.text) == [long])
    }
}
