import ConfigTemplates
import Testing

/// The rules of the Mustache specification that amorce keeps, and where it is stricter.
struct MustacheTests {
    private static let values: TemplateValue = .map([
        "name": .string("amorce"), "empty": .string(""), "yes": .boolean(true), "no": .boolean(false), "nothing": .null,
        "db": .map(["host": .string("h"), "port": .string("3306"), "replica": .map(["host": .string("r")])]),
        "list": .list([.string("a"), .string("b")]), "none": .list([]), "site-name": .string("s"),
        "hosts": .list([.map(["name": .string("one")]), .map(["port": .string("9")])]),
    ])

    private static func render(_ text: String, _ values: TemplateValue = values) throws(TemplateProblems) -> String {
        let rendered = try Template(name: "motd.mustache", source: Array(text.utf8)).render(values)
        return String(decoding: rendered.bytes, as: UTF8.self)
    }

    @Test(arguments: [
        ("", ""), ("no tags }} { { x", "no tags }} { { x"),
        ("{{name}}|{{ name }}|{{\tname\n}}", "amorce|amorce|amorce"), ("{{db.host}}:{{db.port}}", "h:3306"),
        ("{{db.replica.host}}", "r"), ("{{site-name}}", "s"), ("[{{empty}}]", "[]"),
        ("{{yes}} {{no}}", "true false"),
        // Sections.
        ("{{#yes}}in{{/yes}}{{#no}}out{{/no}}", "in"), ("{{^yes}}in{{/yes}}{{^no}}out{{/no}}", "out"),
        ("{{#nothing}}x{{/nothing}}{{^nothing}}y{{/nothing}}", "y"), ("{{#none}}x{{/none}}{{^none}}y{{/none}}", "y"),
        ("{{#empty}}x{{/empty}}{{^empty}}y{{/empty}}", "y"), ("{{#name}}<{{.}}>{{/name}}", "<amorce>"),
        ("{{#list}}({{.}}){{/list}}", "(a)(b)"), ("{{#db}}{{host}} {{name}}{{/db}}", "h amorce"),
        ("{{#db}}{{#replica}}{{host}}{{port}}{{/replica}}{{/db}}", "r3306"), ("{{#hosts}}{{name}},{{/hosts}}", "one,amorce,"),
        ("{{#db.replica}}{{host}}{{/db.replica}}", "r"), ("{{#yes}}{{#yes}}x{{/yes}}{{/yes}}", "x"),
        // Comments and delimiters.
        ("a{{! anything {{ here }}b", "ab"), ("a{{!\n many\n lines\n}}b", "ab"), ("{{=<% %>=}}<%name%> {{name}}", "amorce {{name}}"),
        ("{{=| |=}}|name||={{ }}=|{{name}}", "amorceamorce"), ("{{= | | =}}|name|", "amorce"),
        // Tags alone on their lines.
        ("a\n{{#yes}}\nb\n{{/yes}}\nc", "a\nb\nc"), ("a\n  {{#yes}}\t\n  b\n  {{/yes}}\nc", "a\n  b\nc"),
        ("a\r\n{{#yes}}\r\nb\r\n{{/yes}}\r\nc", "a\r\nb\r\nc"), ("{{#yes}}\nb\n{{/yes}}", "b\n"), ("  {{! x }}  \nb", "b"),
        ("a\n{{!\nx\n}}\nb", "a\nb"), ("a {{! x }}\nb", "a \nb"), ("{{=< >=}}\n<name>", "amorce"),
        ("{{#yes}}{{/yes}}\nx", "\nx"), ("a\n  {{name}}\nb", "a\n  amorce\nb"), ("| {{#yes}}\n| {{/yes}}\n", "| \n| \n"),
        ("{{#list}}\n- {{.}}\n{{/list}}\n", "- a\n- b\n"),
        // The one filter.
        ("{{name|url}} {{db.port | url}}", "amorce 3306"),
    ])
    func renders(_ template: String, _ expected: String) throws {
        #expect(try Self.render(template) == expected)
    }

    @Test(arguments: [
        ("{{nam}}", "motd.mustache:1: unknown name \"nam\" (did you mean \"name\"?)"),
        ("\n\n{{db.hots}}", "motd.mustache:3: unknown name \"db.hots\" (did you mean \"db.host\"?)"),
        ("{{port}}", "motd.mustache:1: unknown name \"port\" (did you mean \"db.port\"?)"),
        ("{{zzzzzz}}", "motd.mustache:1: unknown name \"zzzzzz\""),
        ("{{#nmae}}{{/nmae}}", "motd.mustache:1: unknown name \"nmae\" (did you mean \"name\"?)"),
        ("{{^lists}}{{/lists}}", "motd.mustache:1: unknown name \"lists\" (did you mean \"list\"?)"),
        ("{{name.x}}", "motd.mustache:1: unknown name \"name.x\" (did you mean \"name\"?)"),
        ("{{db}}", "motd.mustache:1: db is a map, not a value; name one of its entries: {{db.host}} is one"),
        ("{{list}}", "motd.mustache:1: list is a list: a section, {{#list}}…{{/list}}, renders its items"),
        (
            "{{nothing}}",
            "motd.mustache:1: nothing is null: put the tag into a section, {{#name}}…{{/name}}, or give it a value"
        ),
        ("\n{{{name}}}", "motd.mustache:2: {{{ }}} puts in a value as it is, which is refused: write {{ }}, and the value is quoted for its place"),
        ("{{&name}}", "motd.mustache:1: {{& }} puts in a value as it is, which is refused: write {{ }}, and the value is quoted for its place"),
        ("{{> part}}", "motd.mustache:1: {{> }}: partials are not supported; a template is one file"),
        ("a\n{{#yes}}\nb", "motd.mustache:2: the section \"yes\" is never closed"),
        ("{{/yes}}", "motd.mustache:1: {{/yes}} closes a section that is not open"),
        ("{{#yes}}\n{{/no}}", "motd.mustache:2: {{/no}} stands where the section \"yes\" of line 1 should be closed"),
        ("x\n{{name", "motd.mustache:2: a tag is opened here and never closed"),
        ("{{name\n{{db.host}}", "motd.mustache:1: a tag is opened here and not closed before the next one"),
        ("{{}}", "motd.mustache:1: a tag without a name"), ("{{a b}}", "motd.mustache:1: a name in a tag has no blanks"),
        ("{{db..host}}", "motd.mustache:1: the name \"db..host\" has an empty part"),
        ("{{=x=}}", "motd.mustache:1: delimiters are changed by {{=OPEN CLOSE=}}, two words without ="),
        ("{{name|ulr}}", "motd.mustache:1: unknown filter \"ulr\" (did you mean \"url\"?); there is url, once"),
        ("{{#name|url}}{{/name}}", "motd.mustache:1: a section takes no filter (\"url\")"),
        ("\u{feff}x", "motd.mustache:1: the template begins with a byte order mark, which would reach the rendered file; remove it"),
        // The header.
        ("\n{{! amorce: mode=0640 }}", "motd.mustache:2: the header {{! amorce: … }} stands at the start of the first line or nowhere"),
        ("{{! amorce: mod=0640 }}", "motd.mustache:1: header: unknown key \"mod\" (did you mean \"mode\"?)"),
        ("{{! amorce: mode=0888 }}", "motd.mustache:1: header: mode=0888 is not an octal mode such as 0640"),
        ("{{! amorce: mode=4755 }}", "motd.mustache:1: header: mode=4755 is not an octal mode such as 0640"),
        ("{{! amorce: owner=root }}", "motd.mustache:1: header: owner=root is not USER:GROUP"),
        ("{{! amorce: php }}", "motd.mustache:1: header: \"php\" is not KEY=VALUE"),
        ("{{! amorce: mode=640 mode=600 }}", "motd.mustache:1: header: mode stands twice"),
        (
            "{{! amorce: language=phq }}",
            "motd.mustache:1: header: unknown language \"phq\" (did you mean \"php\"?); known are apache, php, ini, fpm, shell, "
                + "dotenv, mysql, rsyslog, html, json, plain"
        ),
    ])
    func refuses(_ template: String, _ message: String) {
        #expect(throws: TemplateProblems.self) { try Self.render(template) }
        do throws(TemplateProblems) { _ = try Self.render(template) } catch { #expect(error.description == message) }
    }

    /// Fault 85: everything at once, in the order of the lines, each once.
    @Test func everyProblemIsToldAtOnce() throws {
        let text = "{{one}}\n{{#list}}{{two}}{{/list}}\n{{db}}\n{{nul}} {{control}}\n{{nul}}"
        let values = TemplateValue.map([
            "list": .list([.string("a"), .string("b")]), "db": .map([:]), "nul": .text([65, 0], isSecret: true),
            "control": .text(Array("MADE-UP-SECRET\n".utf8), isSecret: true),
        ])
        do throws(TemplateProblems) {
            _ = try Self.render(text, values)
            Issue.record("rendered")
        } catch {
            #expect(error.problems.map(\.line) == [1, 2, 3, 4, 4, 5])
            #expect(!error.description.contains("MADE-UP-SECRET"))
        }
        do throws(TemplateProblems) {
            _ = try Template(name: "x", source: Array("{{{a}}}\n{{>b}}\n{{#c}}\n{{d e}}".utf8))
            Issue.record("read")
        } catch {
            #expect(error.problems.map(\.line) == [1, 2, 3, 4])
        }
    }

    @Test func secretsAreMarkedWithTheirQuotes() throws {
        let template = try Template(name: "a.php", source: Array("<?php $a = {{public}} . {{secret}} . '{{secret}}';".utf8))
        let text = try template.render(
            .map(["public": .string("p"), "secret": .text(Array("it's".utf8), isSecret: true)]))
        let marked = text.secretRanges.map { String(decoding: text.bytes[$0], as: UTF8.self) }
        #expect(marked == ["'it\\'s'", "it\\'s"])
    }

    @Test func theHeaderSaysLanguageModeAndOwner() throws {
        let template = try Template(
            name: "x.php.mustache", source: Array("{{! amorce: language=ini mode=0640 owner=root:www-data }}\na = {{a}}\n".utf8))
        #expect(template.language == .ini)
        #expect(template.mode == 0o640)
        #expect(template.owner == "root:www-data")
        #expect(try template.render(.map(["a": .string("x y")])).bytes == Array("a = 'x y'\n".utf8))
        let plain = try Template(name: "x", source: [])
        #expect(plain.mode == nil && plain.owner == nil && plain.language == .plain)
    }

    @Test(arguments: [
        ("release/wp-config.php.mustache", TargetLanguage.php), ("etc/php/8.2/fpm/php.ini", .ini),
        ("etc/php/8.2/fpm/conf.d/90-x.ini.mustache", .ini), ("etc/php/8.2/fpm/pool.d/www.conf", .fpm),
        ("etc/php/8.2/fpm/php-fpm.conf", .fpm), ("etc/apache2/sites-available/site.conf.mustache", .apache),
        ("etc/apache2/apache2.conf", .apache), ("etc/apache2/envvars", .shell), ("etc/httpd/conf/x.conf", .apache),
        ("release/.htaccess", .apache), ("root/.my.cnf", .mysql), ("etc/mysql/conf.d/x.cnf", .mysql), ("release/.env", .dotenv),
        ("release/.env.local.mustache", .dotenv), ("release/prod.env", .dotenv), ("usr/local/bin/x.sh", .shell),
        ("etc/default/boutique", .shell), ("release/default/x", .plain), ("etc/rsyslog.d/60-x.conf", .rsyslog),
        ("etc/rsyslog.conf", .rsyslog), ("release/maintenance.html", .html), ("release/auth.json", .json), ("etc/motd", .plain),
        ("etc/cron.d/x", .plain), ("etc/systemd/system/x.conf", .plain),
    ])
    func languagesByName(_ name: String, _ language: TargetLanguage) throws {
        #expect(try Template(name: name, source: []).language == language)
    }

    @Test func urlsArePercentEncoded() throws {
        let text = try Self.render("{{a|url}}", .map(["a": .string("p@ss/w:rd %\u{e9}-._~'\"\n")]))
        #expect(text == "p%40ss%2Fw%3Ard%20%25%C3%A9-._~%27%22%0A")
    }
}
