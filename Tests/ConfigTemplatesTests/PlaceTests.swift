import ConfigTemplates
import Testing

/// What each language writes for a value, and the places and values that it refuses.
struct PlaceTests {
    private static func render(_ language: String, _ text: String, _ value: TemplateValue) throws(TemplateProblems) -> String {
        let source = Array("{{! amorce: language=\(language) }}\n\(text)".utf8)
        let rendered = try Template(name: "x", source: source).render(.map(["v": value, "w": .string("w")]))
        return String(decoding: rendered.bytes, as: UTF8.self)
    }

    @Test(arguments: [
        ("apache", "Listen {{v}}", "80", "Listen 80"), ("apache", "SetEnv A {{v}}", "a b", "SetEnv A \"a b\""),
        ("apache", "SetEnv A {{v}}", "", "SetEnv A \"\""), ("apache", "<Directory {{v}}>", "/a b", "<Directory \"/a b\">"),
        ("apache", "Header set A \"{{v}}\"", "5%\\", "Header set A \"5%%\\\\\\\\\""), ("apache", "# {{v}}", "a b", "# a b"),
        ("apache", "RewriteRule ^{{v}}$ -", "a-b", "RewriteRule ^a-b$ -"),
        ("php", "<?php f({{v}});", "it's", "<?php f('it\\'s');"), ("php", "<?php f(\"{{v}}\");", "$a\n", "<?php f(\"\\$a\\n\");"),
        ("php", "<p>{{v}}</p>", "<b>", "<p>&lt;b&gt;</p>"), ("php", "<?php // {{v}}", "a", "<?php // a"),
        ("ini", "a = {{v}}", "42", "a = 42"), ("ini", "a = {{v}}", "none", "a = 'none'"), ("ini", "a = \"{{v}}\"", "x y", "a = \"x y\""),
        ("fpm", "a = {{v}}", "/run/x.sock", "a = /run/x.sock"), ("shell", "A={{v}}", "a b", "A='a b'"),
        ("shell", "A={{v}}", "it's", "A=\"it's\""), ("shell", "{{v}}=1", "NAME", "NAME=1"), ("dotenv", "A={{v}}", "it's", "A='it'\"'\"'s'"),
        ("mysql", "a={{v}}", "a#b", "a=\"a#b\""), ("rsyslog", "action(a={{v}} )", "$x", "action(a=\"\\044x\" )"),
        ("rsyslog", "*.* @@{{v}}:514", "logs.test", "*.* @@logs.test:514"), ("html", "<a b=\"{{v}}\">", "\"", "<a b=\"&quot;\">"),
        ("json", "[{{v}}]", "\"\n", "[\"\\\"\\u000a\"]"), ("plain", "{{v}}", "a 'b' \"c\" \\", "a 'b' \"c\" \\"),
    ])
    func writes(_ language: String, _ template: String, _ value: String, _ expected: String) throws {
        #expect(try Self.render(language, template, .string(value)) == expected)
    }

    @Test(arguments: [
        ("php", "<?php f({{v}});", "true", "null"), ("json", "[{{v}}]", "true", "null"), ("ini", "a = {{v}}", "On", nil),
        ("fpm", "a = {{v}}", "On", nil), ("apache", "A {{v}}", "On", nil), ("mysql", "a={{v}}", "1", nil),
        ("rsyslog", "a(b={{v}} )", "\"on\"", nil), ("shell", "A={{v}}", "'true'", nil), ("dotenv", "A={{v}}", "'true'", nil),
        ("html", "{{v}}", "true", nil), ("plain", "{{v}}", "true", nil),
    ])
    func booleansAreWordsAndNullIsRefusedWithoutOne(_ language: String, _ template: String, _ yes: String, _ null: String?) throws {
        func written(_ text: String) -> String {
            let parts = template.split(separator: "{{v}}", omittingEmptySubsequences: false)
            return parts[0] + text + parts[1]
        }
        #expect(try Self.render(language, template, .boolean(true)) == written(yes))
        if let null {
            #expect(try Self.render(language, template, .null) == written(null))
        } else {
            #expect(throws: TemplateProblems.self) { try Self.render(language, template, .null) }
        }
    }

    /// Each with a value that would otherwise change what the file says.
    @Test(arguments: [
        ("apache", "SetEnv A \"{{v}}\"", "a\nUser root"), ("apache", "SetEnv A \"{{v}}\"", "${HOME}"), ("apache", "SetEnv A \"{{v}}{x}\"", "$"),
        ("apache", "SetEnv A \"${{v}}\"", "{HOME}"), ("apache", "{{v}} x", "User"), ("apache", "SetEnv A ${{{v}}}", "HOME"),
        ("apache", "SetEnv A b{{v}}", "c d"), ("apache", "# {{v}}", "a\nUser root"), ("apache", "# {{v}}\nx", "a\\"),
        ("apache", "ErrorLog {{v}}", "|/bin/sh"), ("apache", "Define A {{v}}", "a\"b"), ("apache", "<If \"'{{v}}' == 'a'\">", "' || true"),
        ("apache", "RewriteRule {{v}} -", ".*"), ("apache", "AuthName \"{{v}}\"", "%{ENV:X}"), ("apache", "Header set A \"{{v}}\"", "expr=1"),
        ("apache", "SetEnv A \"b\\{{v}}\"", "c"), ("apache", "SetEnv A \"{{v}}\nB c", "d"),
        ("php", "<?php /* {{v}} */", "a */ x"), ("php", "<?php /* *{{v}} */", "/"), ("php", "<?php // {{v}}", "a\nx();"),
        ("php", "<?php // {{v}}", "?>"), ("php", "<?php // ?{{v}}", ">"), ("php", "<?php #{{v}}", "[A]"), ("php", "<?php # {{v}}\n", "a\rx"),
        ("php", "<?php `{{v}}`;", "id"), ("php", "<?php \"{$a[{{v}}]}\";", "x"), ("php", "<?php \"$a[{{v}}]\";", "x"), ("php", "<?php \"${{{v}}}\";", "x"),
        ("php", "<?php <<<{{v}}\nx\n", "E"), ("php", "<?php <<<'E'\n{{v}}\nE;", "x"), ("php", "<?php f('a'{{v}});", "b"),
        ("php", "<?php f({{v}}b);", "a"), ("php", "<?php f({{v}}{{w}});", "a"), ("php", "<?php f('\\{{v}}');", "a"), ("php", "<? {{v}}", "a"),
        ("php", "<a href={{v}}>", "a"), ("php", "<script>x = '{{v}}'</script>", "a"), ("php", "<!-- {{v}} -->", "a"), ("php", "<?php f('{{v}}", "a"),
        ("ini", "; {{v}}", "a\nb=c"), ("ini", "[{{v}}]", "a]\n"), ("ini", "{{v}} = 1", "a = b"), ("ini", "a = ${{{v}}}", "HOME"),
        ("ini", "a = '{{v}}'", "it's"), ("ini", "a = \"$${{v}}\"", "a"), ("ini", "a = \"b\\{{v}}\"", "c"),
        ("fpm", "env[A] = {{v}}", "$HOME"), ("fpm", "user = {{v}}", "a$pool"), ("fpm", "a = {{v}}", "a\nb"), ("fpm", "a = {{v}}", ""),
        ("fpm", "a = {{v}}ol", "x$po"), ("fpm", "a[{{v}}] = 1", "a]"),
        ("shell", "cat <<E\n{{v}}\nE\n", "x"), ("shell", "A=`{{v}}`", "x"), ("shell", "A=${B:-{{v}}}", "x"), ("shell", "A=$(( {{v}} ))", "1"),
        ("shell", "A=$'{{v}}'", "x"), ("shell", "# {{v}}", "a\nrm"), ("shell", "{{v}}=1", "A;B"), ("shell", "A=\\{{v}}", "x"), ("shell", "A=\"{{v}}", "x"),
        ("dotenv", "A=\"${B:-{{v}}}\"", "x"), ("dotenv", "A=$({{v}})", "id"), ("dotenv", "{{v}}=1", "A B"), ("dotenv", "# {{v}}", "a\nB=c"),
        ("dotenv", "A=b\\{{v}}", "x"), ("mysql", "{{v}}=1", "a\nb"), ("mysql", "# {{v}}", "a\nb"), ("mysql", "a = b{{v}}", "c#d"),
        ("mysql", "a = \"b\" {{v}}", "c"), ("mysql", "a = \"{{v}}\nb", "c"),
        ("rsyslog", "*.* @@{{v}}", "a\n*.* b"), ("rsyslog", "template(name=\"a\" type=\"string\" string=\"{{v}}\")", "%msg%"),
        ("rsyslog", "# {{v}}", "a\nb"), ("rsyslog", "action(a=`echo {{v}}`)", "$A"), ("rsyslog", "action(a=b{{v}} )", "c\"d"),
        ("html", "<{{v}}>", "a"), ("html", "<a {{v}}>", "a"), ("html", "<style>{{v}}</style>", "a"), ("json", "\"\\{{v}}\"", "n"),
        ("plain", "{{v}}", "a\nb"), ("plain", "{{v}}", "a\tb"), ("plain", "{{v}}", "a\u{1b}[2J"),
    ])
    func refuses(_ language: String, _ template: String, _ value: String) {
        // The delimiters are changed where the place itself is made of braces.
        let text = "{{=<< >>=}}\n" + template.replacing("{{v}}", with: "<<v>>").replacing("{{w}}", with: "<<w>>")
        do throws(TemplateProblems) {
            let result = try Self.render(language, template.contains("<<") ? template : text, .string(value))
            Issue.record("rendered: \(result)")
        } catch {
            #expect(error.problems.allSatisfy { $0.file == "x" && $0.line >= 2 })
            #expect(value.count < 4 || !error.description.contains(value))
        }
    }

    @Test(arguments: TargetLanguage.allCases)
    func noLanguageCarriesNUL(_ language: TargetLanguage) {
        #expect(throws: TemplateProblems.self) {
            try Self.render(language.rawValue, "A={{v}}", .text([65, 0], isSecret: true))
        }
    }
}

extension String {
    fileprivate func replacing(_ text: String, with other: String) -> String {
        split(separator: text, omittingEmptySubsequences: false).joined(separator: other)
    }
}
