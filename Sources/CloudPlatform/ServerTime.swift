internal import HostSystem

/// The times that servers write, as seconds since 1970. All of them are UTC.
enum ServerTime {
    /// `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, section 5.6.7); the two forms that are obsolete there are not read.
    static func http(_ text: String) -> Int64? {
        let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
        let words = text.split(separator: " ")
        guard words.count == 6, words[5] == "GMT", let day = Int(words[1]), let year = Int(words[3]),
            let month = months.firstIndex(of: String(words[2]))
        else { return nil }
        return seconds(year, month + 1, day, words[4])
    }

    /// `2013-09-17T18:07:53.000Z`, with or without the fraction.
    static func iso(_ text: String) -> Int64? {
        guard text.hasSuffix("Z"), let letter = text.firstIndex(of: "T") else { return nil }
        let date = text[..<letter].split(separator: "-").compactMap { Int($0) }
        let clock = text[text.index(after: letter)...].dropLast().prefix { $0 != "." }
        guard date.count == 3 else { return nil }
        return seconds(date[0], date[1], date[2], clock)
    }

    private static func seconds(_ year: Int, _ month: Int, _ day: Int, _ clock: Substring) -> Int64? {
        let parts = clock.split(separator: ":").compactMap { Int($0) }
        guard parts.count == 3 else { return nil }
        return UTCStamp.seconds(
            year: year, month: month, day: day, hour: parts[0], minute: parts[1], second: parts[2])
    }
}
