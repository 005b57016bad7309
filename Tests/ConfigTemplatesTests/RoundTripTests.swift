import ConfigTemplates
import HostSystem
import TestSupport
import Testing

/// Fault 84: values reach the programs themselves byte for byte, or are refused, and refused only where documented.
struct RoundTripTests {
    private let scratch: ScratchDirectory

    init() throws { scratch = try ScratchDirectory() }

    // MARK: PHP

    static let php: [TriedPlace] = [
        TriedPlace("single quotes", before: "<?php\n", "echo bin2hex('{{value}}'), \"\\n\";"),
        TriedPlace(
            "single quotes, inside text", before: "<?php\n", "echo bin2hex('a{{value}}b'), \"\\n\";", prefix: "a",
            suffix: "b"),
        TriedPlace("double quotes", before: "<?php\n", "echo bin2hex(\"{{value}}\"), \"\\n\";"),
        TriedPlace(
            "double quotes, between variables", before: "<?php $n = 'N';\n",
            "echo bin2hex(\"\\1$n{{value}}$n\"), \"\\n\";", prefix: "\u{1}N", suffix: "N"),
        TriedPlace(
            "double quotes, between digits and braces", before: "<?php $n = 'N';\n",
            "echo bin2hex(\"{$n}4{{value}}41{$n}\"), \"\\n\";", prefix: "N4", suffix: "41N"),
        TriedPlace(
            "double quotes, twice", before: "<?php\n",
            "echo \"{{value}}{{value}}\" === \"{{value}}\" . '{{value}}' ? bin2hex(\"{{value}}\") : 'torn', \"\\n\";"),
        TriedPlace("bare", before: "<?php\n", "echo bin2hex({{value}}), \"\\n\";"),
        TriedPlace(
            "bare in an array", before: "<?php $a = [\n", "    {{key}} => {{value}},",
            after: "];\nforeach ($a as $v) { echo bin2hex($v), \"\\n\"; }\n"),
        TriedPlace(
            "heredoc, at the start of a line", before: "<?php\n", "echo bin2hex(<<<EOT\n{{value}}\nEOT), \"\\n\";"),
        TriedPlace(
            "heredoc, around its label", before: "<?php\n", "echo bin2hex(<<<\"EOT\"\n  E{{value}}T;\n  EOT), \"\\n\";",
            prefix: "E", suffix: "T;"),
        TriedPlace("short echo tags", "<?= bin2hex({{value}}), \"\\n\" ?>"),
        TriedPlace(
            "HTML", before: "<?php\n",
            "ob_start(); ?>{{value}}<?php echo bin2hex(decoded(ob_get_clean())), \"\\n\";", after: decoded),
        TriedPlace(
            "HTML attribute", before: "<?php\n",
            "ob_start(); ?><a title=\"{{value}}\"><?php echo bin2hex(decoded(substr(ob_get_clean(), 10, -2))), \"\\n\";",
            after: decoded),
    ]

    /// PHP leaves `&#13;` alone; a browser does not.
    private static let decoded = """
        function decoded($h) { return str_replace('&#13;', "\\r", html_entity_decode($h, ENT_QUOTES | ENT_HTML5)); }
        """

    @Test(arguments: php)
    func phpReadsWhatWasGiven(_ place: TriedPlace) throws {
        let rendered = try place.render("page.php")
        #expect(rendered.surprises == [])
        let file = try scratch.write("page.php", rendered.text)
        let lines = HexLines.split(try Program.check(["php", "-n", file]))
        let expected = HexLines.encode(rendered.expected)
        #expect(HexLines.differences(lines, expected) == [])
        #expect(expected.count > 2_000)
    }

    // MARK: php.ini

    static let ini: [TriedPlace] = [
        TriedPlace("bare", "{{key}} = {{value}}"),
        TriedPlace("bare, before a comment", "{{key}} = {{value}} ; \"why"),
        TriedPlace("bare, inside text", "{{key}} = /srv/{{value}}/x", prefix: "/srv/", suffix: "/x"),
        TriedPlace("double quotes", "{{key}} = \"{{value}}\""),
        TriedPlace("double quotes, inside text", "{{key}} = \"a b{{value}}c d\"", prefix: "a b", suffix: "c d"),
        TriedPlace("single quotes", "{{key}} = '{{value}}'", refuses: { $0.contains(0x27) }),
        TriedPlace(
            "single quotes, inside text", "{{key}} = '${a{{value}}b'", prefix: "${a", suffix: "b",
            refuses: { $0.contains(0x27) }),
    ]

    @Test(arguments: ini)
    func phpsIniReadersReadWhatWasGiven(_ place: TriedPlace) throws {
        let rendered = try place.render("etc/php/8.2/fpm/conf.d/90-x.ini")
        #expect(rendered.surprises == [])
        let expected = HexLines.encode(rendered.expected)
        #expect(expected.count > 1_500)
        let file = try scratch.write("php.ini", rendered.text)
        let parsed = try Program.check(
            ["php", "-n", "-r", "foreach (parse_ini_file($argv[1]) as $v) { echo bin2hex($v), \"\\n\"; }", file])
        #expect(HexLines.differences(HexLines.split(parsed), expected) == [])
        let asked = try Program.check(
            [
                "php", "-c", file, "-r",
                "for ($i = 0; $i < $argv[1]; $i++) { echo bin2hex(get_cfg_var(\"V$i\")), \"\\n\"; }", "\(expected.count)",
            ])
        #expect(HexLines.differences(HexLines.split(asked), expected) == [])
    }

    // MARK: shell

    static let shell: [TriedPlace] = [
        TriedPlace("bare", "{{key}}={{value}}"),
        TriedPlace("bare, inside a word", "{{key}}=a{{value}}b", prefix: "a", suffix: "b"),
        TriedPlace("double quotes", "{{key}}=\"{{value}}\""),
        TriedPlace(
            "double quotes, inside text", before: "n=N\n", "{{key}}=\"${n}{{value}}$n\" # it's", prefix: "N", suffix: "N"),
        TriedPlace("single quotes", "{{key}}='{{value}}'"),
        TriedPlace("single quotes, inside text", "export {{key}}='$a{{value}}\"'", prefix: "$a", suffix: "\""),
        TriedPlace("a command in double quotes", "{{key}}=\"$(printf %s {{value}}; printf .)\"", suffix: "."),
    ]

    @Test(arguments: shell, ["dash", "bash"])
    func shellsReadWhatWasGiven(_ place: TriedPlace, _ shell: String) throws {
        let rendered = try place.render("etc/default/boutique")
        #expect(rendered.surprises == [])
        #expect(rendered.expected.count > 2_000)
        let file = try scratch.write("boutique", rendered.text)
        let script = """
            . "$1"
            i=0
            while [ $i -lt $2 ]; do eval "printf '%s\\\\0' \\"\\$V$i\\""; i=$((i + 1)); done
            """
        let output = try Program.check([shell, "-c", script, shell, file, "\(rendered.expected.count)"])
        let got = output.split(separator: 0, omittingEmptySubsequences: false).dropLast().map { Array($0) }
        #expect(HexLines.differences(HexLines.encode(got), HexLines.encode(rendered.expected)) == [])
    }

    // MARK: .env

    static let dotenv: [TriedPlace] = [
        TriedPlace("bare", "{{key}}={{value}}"),
        TriedPlace("bare, before a comment", "{{key}}={{value}} # it's"),
        TriedPlace("bare, inside text", "{{key}}=x://{{value}}@host", prefix: "x://", suffix: "@host"),
        TriedPlace("double quotes", "{{key}}=\"{{value}}\""),
        TriedPlace(
            "double quotes, inside text", before: "N=n\n", "{{key}}=\"a ${N}{{value}}$N\"", prefix: "a n", suffix: "n"),
        TriedPlace("single quotes", "{{key}}='{{value}}'"),
        TriedPlace("single quotes, inside text", "{{key}}='$a{{value}}\"'", prefix: "$a", suffix: "\""),
    ]

    @Test(arguments: dotenv)
    func symfonyReadsWhatWasGiven(_ place: TriedPlace) throws {
        let rendered = try place.render("release/.env.local")
        #expect(rendered.surprises == [])
        #expect(rendered.expected.count > 2_000)
        let file = try scratch.write("env", rendered.text)
        let script = """
            require 'Symfony/Component/Dotenv/autoload.php';
            foreach ((new Symfony\\Component\\Dotenv\\Dotenv())->parse(file_get_contents($argv[1])) as $k => $v) {
                if ($k !== 'N') { echo bin2hex($v), "\\n"; }
            }
            """
        let output = try Program.check(["php", "-d", "include_path=/usr/share/php", "-r", script, file])
        #expect(HexLines.differences(HexLines.split(output), HexLines.encode(rendered.expected)) == [])
    }

    // MARK: my.cnf

    static let mysql: [TriedPlace] = [
        TriedPlace("bare", before: "[client]\n", "{{key}} = {{value}}"),
        TriedPlace("bare, before a comment", before: "[client]\n", "{{key}}={{value}} # it's"),
        TriedPlace("double quotes", before: "[client]\n", "{{key}}=\"{{value}}\""),
        TriedPlace(
            "double quotes, inside text", before: "[client]\n", "{{key}} = \"#\\\"{{value}}' \"", prefix: "#\"",
            suffix: "' "),
        TriedPlace("single quotes", before: "[client]\n", "{{key}} = '{{value}}'"),
        TriedPlace(
            "bare, inside text", before: "[client]\n", "{{key}} = /srv/{{value}}/x", prefix: "/srv/", suffix: "/x",
            refuses: { $0.contains { "#'\"".utf8.contains($0) } }),
    ]

    @Test(arguments: mysql)
    func mariadbReadsWhatWasGiven(_ place: TriedPlace) throws {
        let rendered = try place.render("root/.my.cnf")
        #expect(rendered.surprises == [])
        #expect(rendered.expected.count > 1_000)
        let file = try scratch.write("my.cnf", rendered.text)
        let output = try Program.check(["my_print_defaults", "--defaults-file=\(file)", "client"])
        var expected: [UInt8] = []
        for (index, value) in rendered.expected.enumerated() { expected += Array("--V\(index)=".utf8) + value + [10] }
        let difference = zip(output, expected).enumerated().first { $1.0 != $1.1 }?.offset
        #expect(difference == nil, "around \(output.dropFirst(max(0, (difference ?? 0) - 40)).prefix(80))")
        #expect(output.count == expected.count)
    }

    // MARK: JSON

    static let json: [TriedPlace] = [
        TriedPlace("bare", before: "[\n", "{{value}},", after: "null]\n", refuses: isNotUTF8),
        TriedPlace(
            "in quotes", before: "[\n", "\"\\\"{{value}}\\\\\",", after: "null]\n", prefix: "\"", suffix: "\\",
            refuses: isNotUTF8),
    ]

    private static let isNotUTF8: @Sendable ([UInt8]) -> Bool = { String(validating: $0, as: UTF8.self) == nil }

    @Test(arguments: json)
    func jsonReadersReadWhatWasGiven(_ place: TriedPlace) throws {
        let rendered = try place.render("release/auth.json")
        #expect(rendered.surprises == [])
        #expect(rendered.expected.count > 1_000)
        let file = try scratch.write("auth.json", rendered.text)
        let script = """
            $all = json_decode(file_get_contents($argv[1]), false, 9, JSON_THROW_ON_ERROR);
            array_pop($all);
            foreach ($all as $v) { echo bin2hex($v), "\\n"; }
            """
        let output = try Program.check(["php", "-n", "-r", script, file])
        #expect(HexLines.differences(HexLines.split(output), HexLines.encode(rendered.expected)) == [])
    }
}
