/// The times that servers write, as seconds since 1970. All of them are UTC.
enum ServerTime {
    /// `20130524T000000Z`, as SigV4 wants it.
    static func stamp(_ seconds: Int64) -> String {
        let days = Int64((Double(seconds) / 86400).rounded(.down))
        let (year, month, day) = civil(days)
        let rest = seconds - days * 86400
        return padded(year, 4) + padded(month, 2) + padded(day, 2) + "T" + padded(rest / 3600, 2)
            + padded(rest / 60 % 60, 2) + padded(rest % 60, 2) + "Z"
    }

    /// `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, section 5.6.7); the two forms that are obsolete there are not read.
    static func http(_ text: String) -> Int64? {
        let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
        let words = text.split(separator: " ")
        guard words.count == 6, words[5] == "GMT", let day = Int64(words[1]), let year = Int64(words[3]),
            let month = months.firstIndex(of: String(words[2]))
        else { return nil }
        return seconds(year, Int64(month) + 1, day, words[4])
    }

    /// `2013-09-17T18:07:53.000Z`, with or without the fraction.
    static func iso(_ text: String) -> Int64? {
        guard text.hasSuffix("Z"), let letter = text.firstIndex(of: "T") else { return nil }
        let date = text[..<letter].split(separator: "-").compactMap { Int64($0) }
        let clock = text[text.index(after: letter)...].dropLast().prefix { $0 != "." }
        guard date.count == 3 else { return nil }
        return seconds(date[0], date[1], date[2], clock)
    }

    private static func seconds(_ year: Int64, _ month: Int64, _ day: Int64, _ clock: Substring) -> Int64? {
        let parts = clock.split(separator: ":").compactMap { Int64($0) }
        guard parts.count == 3, (1970...9999).contains(year), (1...12).contains(month), (1...31).contains(day),
            (0...23).contains(parts[0]), (0...59).contains(parts[1]), (0...60).contains(parts[2])
        else { return nil }
        return days(year, month, day) * 86400 + parts[0] * 3600 + parts[1] * 60 + parts[2]
    }

    /// Days since 1970 of a date of the proleptic Gregorian calendar. A year begins in March here, so that the leap day is its last.
    private static func days(_ year: Int64, _ month: Int64, _ day: Int64) -> Int64 {
        let shifted = month > 2 ? year : year - 1
        let era = shifted / 400
        let yearOfEra = shifted - era * 400
        let dayOfYear = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1
        return era * 146_097 + yearOfEra * 365 + yearOfEra / 4 - yearOfEra / 100 + dayOfYear - 719_468
    }

    private static func civil(_ days: Int64) -> (Int64, Int64, Int64) {
        let shifted = days + 719_468
        let era = (shifted >= 0 ? shifted : shifted - 146_096) / 146_097
        let dayOfEra = shifted - era * 146_097
        let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let part = (5 * dayOfYear + 2) / 153
        let month = part < 10 ? part + 3 : part - 9
        return (yearOfEra + era * 400 + (month <= 2 ? 1 : 0), month, dayOfYear - (153 * part + 2) / 5 + 1)
    }

    private static func padded(_ value: Int64, _ width: Int) -> String {
        let text = String(value)
        return String(repeating: "0", count: max(0, width - text.count)) + text
    }
}
