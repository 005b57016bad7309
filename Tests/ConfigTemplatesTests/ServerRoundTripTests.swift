import ConfigTemplates
import HostSystem
import TestSupport
import Testing

/// Fault 84 for the programs that only tell what they read once they run.
@Suite(.serialized)
struct ServerRoundTripTests {
    private let scratch: ScratchDirectory

    init() throws { scratch = try ScratchDirectory() }

    // MARK: Apache

    static let apache: [TriedPlace] = [
        TriedPlace("bare", "SetEnv {{key}} {{value}}", refuses: isUnreadable),
        TriedPlace("double quotes", "SetEnv {{key}} \"{{value}}\"", refuses: isUnreadable),
        TriedPlace(
            "double quotes, inside text", "    setenv {{key}} \"\\\"a\\\\{{value}}' b\" ", prefix: "\"a\\", suffix: "' b",
            refuses: isUnreadable),
        TriedPlace("single quotes", "SetEnv {{key}} '{{value}}'", refuses: isUnreadable),
        TriedPlace("double quotes, on the next line", "SetEnv {{key}} \\\n  \"{{value}}\"", refuses: isUnreadable),
        TriedPlace(
            "inside a word", "SetEnv {{key}} a{{value}}b", prefix: "a", suffix: "b",
            refuses: { isUnreadable($0) || $0.contains { $0 <= 0x20 || $0 == 0x7f || "\"'\\<>".utf8.contains($0) } }),
    ]

    private static let isUnreadable: @Sendable ([UInt8]) -> Bool = { value in
        value.contains(10) || zip(value, value.dropFirst()).contains { $0 == UInt8(ascii: "$") && $1 == UInt8(ascii: "{") }
    }

    @Test(arguments: apache)
    func apacheReadsWhatWasGiven(_ place: TriedPlace) throws {
        let rendered = try place.render("etc/apache2/sites-available/x.conf")
        #expect(rendered.surprises == [])
        #expect(rendered.expected.count > 800)
        try scratch.write("cgi/print", "#!/bin/sh\nprintf 'Content-Type: application/octet-stream\\n\\n'\nexec env -0\n", mode: 0o755)
        let port = LoopbackServer.freePort()
        let text = rendered.text + Array("ScriptAlias /print \"\(scratch.path)/cgi/print\"\n<Location />\nRequire all granted\n</Location>\n".utf8)
        let file = try ApacheProgram.configuration(text, port: port, in: scratch)
        let server = try ApacheProgram.start(file, port: port)
        let variables = try ApacheProgram.get(server, "/print").split(separator: 0)
        var got = [[UInt8]](repeating: Array("missing".utf8), count: rendered.expected.count)
        for variable in variables where variable.first == UInt8(ascii: "V") {
            let name = variable.prefix { $0 != UInt8(ascii: "=") }
            guard let index = Int(String(decoding: name.dropFirst(), as: UTF8.self)) else { continue }
            got[index] = Array(variable.dropFirst(name.count + 1))
        }
        #expect(HexLines.differences(HexLines.encode(got), HexLines.encode(rendered.expected)) == [])
    }

    /// `%` has a meaning in a header, and `%%` is the character. Bytes that no header may have are not tried.
    @Test func apacheHeadersCarryPercentSigns() throws {
        let values = HostileValues.all.filter { value in
            !Self.isUnreadable(value) && !value.isEmpty && value.allSatisfy { $0 > 0x20 && $0 != 0x7f } && !value.starts(with: "expr=".utf8)
        }.prefix(250)
        let place = TriedPlace("header", "Header always set {{key}} \"{{value}}\"")
        let rendered = try place.render("etc/apache2/x.conf", Array(values))
        #expect(rendered.surprises == [])
        let port = LoopbackServer.freePort()
        let file = try ApacheProgram.configuration(
            rendered.text + Array("DocumentRoot \"\(scratch.path)\"\n".utf8), port: port, in: scratch)
        try scratch.write("x.txt", "x")
        let server = try ApacheProgram.start(file, port: port)
        let answer = try ApacheProgram.get(server, "/x.txt", ["-D", "-", "-o", "/dev/null"])
        #expect(answer.starts(with: "HTTP/1.1 200".utf8), "\(String(decoding: answer.prefix(300), as: UTF8.self))")
        var got: [Int: [UInt8]] = [:]
        for line in answer.split(separator: 10) where line.first == UInt8(ascii: "V") {
            let name = line.prefix { $0 != UInt8(ascii: ":") }
            if let index = Int(String(decoding: name.dropFirst(), as: UTF8.self)) {
                got[index] = Array(line.dropFirst(name.count + 2).dropLast())
            }
        }
        let lines = rendered.expected.indices.map { got[$0] ?? Array("missing".utf8) }
        #expect(HexLines.differences(HexLines.encode(lines), HexLines.encode(rendered.expected)) == [])
    }

    // MARK: PHP-FPM

    static let fpm: [TriedPlace] = [
        TriedPlace("bare", "env[{{key}}] = {{value}}", refuses: isChanged),
        TriedPlace("double quotes", "env[{{key}}] = \"{{value}}\"", refuses: isChanged),
        TriedPlace(
            "double quotes, inside text", "env[{{key}}] = \"a b{{value}}c d\"", prefix: "a b", suffix: "c d",
            refuses: { value in value.contains(10) || has("$pool", in: value) || ["$", "$p", "$po"].contains { value.reversed().starts(with: $0.utf8.reversed()) } }),
        TriedPlace("single quotes", "env[{{key}}] = '{{value}}'", refuses: { isChanged($0) || $0.contains(0x27) }),
    ]

    private static func has(_ text: String, in value: [UInt8]) -> Bool {
        value.indices.contains { value[$0...].starts(with: text.utf8) }
    }

    private static let isChanged: @Sendable ([UInt8]) -> Bool = { $0.isEmpty || $0.contains(10) || has("$pool", in: $0) || $0.first == UInt8(ascii: "$") }

    @Test(arguments: fpm)
    func fpmReadsWhatWasGiven(_ place: TriedPlace) throws {
        let rendered = try place.render("etc/php/8.2/fpm/pool.d/x.conf")
        #expect(rendered.surprises == [])
        #expect(rendered.expected.count > 1_500)
        let page = """
            <?php for ($i = 0; $i < \(rendered.expected.count); $i++) { echo bin2hex(getenv("V$i")), "\\n"; }
            """
        try scratch.write("www/page.php", page)
        let (fpmPort, port) = (LoopbackServer.freePort(), LoopbackServer.freePort())
        let head = "[x]\nlisten = 127.0.0.1:\(fpmPort)\n\(FPMProgram.user)pm = static\npm.max_children = 1\nclear_env = yes\n"
        let pools = try FPMProgram.configuration(Array(head.utf8) + rendered.text, in: scratch)
        let site = """
            DocumentRoot "\(scratch.path)/www"
            <FilesMatch \\.php$>
                SetHandler "proxy:fcgi://127.0.0.1:\(fpmPort)"
            </FilesMatch>

            """
        let file = try ApacheProgram.configuration(Array(site.utf8), port: port, in: scratch)
        let fpm = try FPMProgram.start(pools, port: fpmPort)
        let apache = try ApacheProgram.start(file, port: port)
        let lines = HexLines.split(try ApacheProgram.get(apache, "/page.php"))
        #expect(HexLines.differences(lines, HexLines.encode(rendered.expected)) == [])
        fpm.stop()
    }

    // MARK: rsyslog

    static let rsyslog: [TriedPlace] = [
        TriedPlace("bare", before: listTemplate, "constant(value={{value}}) constant(value=\"|\")", after: "}\n"),
        TriedPlace(
            "double quotes", before: listTemplate, "constant(value=\"\\\"{{value}}'\") constant(value=\"|\")",
            after: "}\n", prefix: "\"", suffix: "'"),
        TriedPlace(
            "an expression", before: variable, "set $!all = $!all & \"\\$a{{value}}\\\\|\";", prefix: "$a", suffix: "\\"),
        TriedPlace(
            "a function's argument", before: variable, "set $!all = $!all & replace('{{value}}|', '', '');"),
    ]

    private static let listTemplate = "template(name=\"t\" type=\"list\") {\n"
    private static let variable = "template(name=\"t\" type=\"list\") { property(name=\"$!all\") }\nset $!all = \"\";\n"

    @Test(arguments: rsyslog)
    func rsyslogReadsWhatWasGiven(_ place: TriedPlace) throws {
        let wrapped = TriedPlace(
            place.testDescription,
            before: """
                module(load="imfile")
                global(workDirectory="\(scratch.path)")
                input(type="imfile" file="\(scratch.path)/in.log" tag="x")
                \(place.before)
                """, place.entry,
            after: """
                \(place.after)
                action(type="omfile" file="\(scratch.path)/out" template="t")
                action(type="omfile" file="\(scratch.path)/end")

                """, prefix: place.prefix, suffix: place.suffix)
        let rendered = try wrapped.render("etc/rsyslog.d/x.conf")
        #expect(rendered.surprises == [])
        let file = try scratch.write("x.conf", rendered.text)
        try scratch.write("in.log", "hello\n")
        let script = """
            rsyslogd -n -f "$1" -i "$2/pid" & pid=$!
            while kill -0 $pid && [ ! -s "$2/end" ]; do sleep 0.1; done
            kill $pid
            wait $pid
            """
        try Program.check(["rsyslogd", "-N1", "-f", file])
        try Program.check(["sh", "-c", script, "sh", file, scratch.path])
        let expected = rendered.expected.flatMap { $0 + Array("|".utf8) }
        let output = try FileReading.bytes(scratch("out"), limit: 64 << 20)
        let difference = zip(output, expected).enumerated().first { $1.0 != $1.1 }?.offset
        #expect(difference == nil, "around \(output.dropFirst(max(0, (difference ?? 0) - 40)).prefix(80))")
        #expect(output.count == expected.count)
    }
}
