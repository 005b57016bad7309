import HostSystem
import Testing

@testable import BootSequence

@Suite struct RedactionTests {
    static let secret = "MADE-UP-SECRET 'q\"<&> and more"

    @Test(arguments: [
        "mysqli_connect('db', 'u', '\(secret)')",
        "mysqli->__construct('db', 'u', 'MADE-UP-SECRET ...')",
        "<pre>MADE-UP-SECRET &#039;q&quot;&lt;&amp;&gt; and more</pre>",
        "<pre>MADE-UP-SECRET &#39;q&quot;&lt;&amp;&gt; and more</pre>",
    ])
    func aSecretIsTakenOutInEveryForm(_ text: String) {
        var redaction = Redaction()
        redaction.add([Secret(Self.secret)])
        let shown = redaction.apply(text)
        #expect(!shown.contains("MADE-UP-SECRET") && shown.contains("(secret)"), "\(shown)")
    }

    @Test func whatAFileSpellsIsTakenOutWithItsTail() {
        var redaction = Redaction()
        redaction.add([Secret("'MADE-UP-SECRET \\'q\"$ and a long TAIL'")])
        let cut = redaction.apply("unexpected single-quoted string \"MADE-UP-SECRET \\'q\"$ and a lo...\"")
        #expect(cut == "unexpected single-quoted string \"(secret)...\"")
        #expect(!redaction.apply("'MADE-UP-SECRET \\'q\"$ and a long TAIL'").contains("TAIL"))
    }

    @Test func shortOnesAndOtherWordsStay() {
        var redaction = Redaction()
        redaction.add([Secret("abc"), Secret("")])
        #expect(redaction.apply("abc and nothing else") == "abc and nothing else")
    }
}
